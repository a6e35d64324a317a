"""Looks at a job while the API server fails in between, and at jobs that this operator cannot work."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aurl_operator import metrics
from aurl_operator.api import names
from aurl_operator.backends.kubernetes import controller
from aurl_operator.backends.kubernetes.act.hands import Hands, Pace
from aurl_operator.backends.kubernetes.cache import Cache
from aurl_operator.backends.kubernetes.client import api as client
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.errors import ApiError
from aurl_operator.backends.kubernetes.controller import FORGIVEN_SECONDS, Controller
from aurl_operator.core.memory import VERSION
from aurl_operator.core.names import rfc3339
from aurl_operator.core.policies import elastic
from aurl_operator.launch.pod.manifest import PodDefaults
from aurl_operator.queue import Key, Queue
from aurl_trainer.contract import Progress
from tests.unit.operator.kubernetes.small_server import SmallServer

KEY = ("music", "bach")
PATH = paths.job(*KEY)
READY = {
    "status": {
        "phase": "Running",
        "podIP": "192.0.2.1",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {"name": names.STORE_CONTAINER, "state": {"running": {"startedAt": "2026-01-31T12:00:00Z"}}}
        ],
    }
}
STRANGE = Progress(0, 1, 1, "step", step="abc", total_steps=9, at=time.time() + 60.0)  # type: ignore[arg-type]
WRONG = {"spec": {"restartPolicy": "Always"}}


class Told(Queue):
    """Tells when a look is over."""

    def __init__(self) -> None:
        super().__init__(time.monotonic)
        self.over = asyncio.Event()

    def done(self, key: Key) -> None:
        super().done(key)
        self.over.set()


class Room:
    """One job, and an operator that looks when it is asked to."""

    def __init__(self, server: SmallServer, api: client.Api) -> None:
        self.server, self.api = server, api
        self.cache = Cache(())
        hands = Hands(api, self.cache, PodDefaults(), Pace(1000.0))
        self._queue = Told()
        self._controller = Controller(api, self.cache, self._queue, hands, PodDefaults())

    def job(self, *, spec: dict[str, Any] | None = None, **metadata: Any) -> None:
        """Puts the job on the server, over what is there."""
        known = self.server.objects.get(PATH, {"metadata": {"uid": "job", "generation": 0}})
        meta = {**known["metadata"], "name": "bach", "namespace": "music", **metadata}
        meta["generation"] += 1
        wanted = {"image": "x", "command": ["train.py"], **(spec or {})}
        body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": meta, "spec": wanted}
        self.server.put(PATH, {**known, **body})

    async def look(self) -> None:
        """As if an event had told of the job as it is."""
        self.cache.put_job(self.server.objects[PATH])
        await self.look_again()

    async def look_again(self) -> float | None:
        """At what is known."""
        return await self._controller.look(KEY)

    def path(self, pod: dict[str, Any]) -> str:
        """Where a pod lies on the server."""
        return paths.pod(KEY[0], pod["metadata"]["name"])

    def lose(self, pod: dict[str, Any]) -> None:
        """A pod is deleted by somebody."""
        del self.server.objects[self.path(pod)]
        self.cache.drop_pod({"kind": "Pod", **pod}, time.time())

    async def work(self) -> None:
        """One look, as a worker takes it: with what it does about errors."""
        self._queue.over.clear()
        self._queue.add(KEY)
        worker = asyncio.create_task(self._controller.work())
        await self._queue.over.wait()
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    def forget(self) -> None:
        """As by a restart: the job is known as it stands on the server, and nothing else."""
        self.cache.drop_job(self.server.objects[PATH])

    def status(self) -> dict[str, Any]:
        return dict(self.server.objects[PATH].get("status") or {})

    def condition(self, kind: str) -> str | None:
        found = [c["message"] for c in self.status().get("conditions", []) if c["type"] == kind]
        return found[0] if found else None

    def events(self) -> list[str]:
        return [event["reason"] for event in self.server.named("events")]


def within(story: Callable[[Room], Awaitable[None]]) -> None:
    async def run() -> None:
        server = SmallServer()
        async with server.client() as api:
            await story(Room(server, api))

    asyncio.run(run())


@pytest.mark.parametrize("trouble", ["away", "silent"])
@pytest.mark.parametrize("restarted", [False, True])
def test_events_that_are_not_taken_hold_nothing_up_and_are_written_later(
    trouble: str, restarted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BRIEF_SECONDS", 0.5)
    monkeypatch.setattr(controller, "GATHER_SECONDS", 0.0)

    async def story(room: Room) -> None:
        room.job(spec={"recovery": {"preemptions": {"backoff": {"initialSeconds": 0}}}})
        await room.look()
        (first,) = room.server.named("pods")
        setattr(room.server, trouble, ("/events",))
        room.lose(first)
        async with asyncio.timeout(client.SECONDS):
            await room.look()
        assert room.status()["restarts"] == {"deleted": 1}
        assert room.server.named("pods"), "expected the lost one to be replaced"
        room.lose(room.server.named("pods")[0])
        assert await room.look_again() is not None, "expected a time at which they are tried again"
        assert room.status()["restarts"] == {"deleted": 2}
        assert not room.events()
        setattr(room.server, trouble, ())
        if restarted:
            room.forget()
        for _ in range(50):
            await room.look()
            if room.events().count("Deleted") == 2:
                break
        await room.look()
        assert room.events().count("Deleted") == 2, f"expected both once, found {room.events()}"

    within(story)


def test_volumes_that_cannot_be_asked_about_hold_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BRIEF_SECONDS", 0.5)

    async def story(room: Room) -> None:
        room.job()
        await room.look()
        (pod,) = room.server.named("pods")
        scheduled = {
            "type": "PodScheduled",
            "status": "True",
            "lastTransitionTime": rfc3339(time.time() - 60),
        }
        status = {"phase": "Pending", "conditions": [scheduled]}
        room.server.silent = ("/events",)
        room.cache.put_pod({"kind": "Pod", **room.server.put(room.path(pod), {**pod, "status": status})})
        async with asyncio.timeout(client.SECONDS):
            await room.look()
        room.server.silent = ()
        asked = room.cache.entries[KEY].mounts[pod["metadata"]["uid"]]
        await room.look()
        assert room.cache.entries[KEY].mounts[pod["metadata"]["uid"]] == asked, "expected it to be let be"

    within(story)


def test_the_memory_holds_only_what_is_still_to_be_told() -> None:
    async def story(room: Room) -> None:
        room.job()
        await room.look()
        (pod,) = room.server.named("pods")
        room.cache.drop_pod({"kind": "Pod", **pod}, time.time())
        await room.look()
        outbox = json.loads(room.status()["memory"])["outbox"]
        assert "incident" in {entry["kind"] for entry in outbox}
        assert "node" not in {entry["kind"] for entry in outbox}, "expected nothing that becomes no Event"

    within(story)


def test_what_a_newer_operator_wrote_is_left_as_it_is() -> None:
    async def story(room: Room) -> None:
        memory = json.dumps({"version": VERSION + 1, "outcome": "of a kind that we do not know"})
        room.job()
        known = room.server.objects[PATH]
        status = {"memory": memory, "phase": "Succeeded", "restarts": {"deleted": 3}, "mood": "good"}
        room.server.put(PATH, {**known, "status": status})
        await room.look()
        found = room.status()
        assert {name: found[name] for name in ("memory", "phase", "restarts", "mood")} == status
        assert "newer Aurl; upgrade" in (room.condition("NewerOperator") or "")
        assert not room.server.named("pods"), "expected no pod for a job of which nothing is known"
        version = room.server.objects[PATH]["metadata"]["resourceVersion"]
        await room.look()
        assert room.server.objects[PATH]["metadata"]["resourceVersion"] == version, "expected no more writes"

    within(story)


def test_what_stands_beside_our_own_words_in_a_status_stays() -> None:
    async def story(room: Room) -> None:
        room.job()
        room.server.put(PATH, {**room.server.objects[PATH], "status": {"mood": "good", "phase": "Suspended"}})
        await room.look()
        found = room.status()
        assert (found["mood"], found["phase"]) == ("good", "Starting")

    within(story)


@pytest.mark.parametrize("why", ["InvalidSpec", "NewerOperator"])
def test_a_job_that_cannot_be_worked_can_still_be_deleted(why: str) -> None:
    async def story(room: Room) -> None:
        room.job(finalizers=[names.FINALIZER])
        if why == "NewerOperator":
            known = room.server.objects[PATH]
            room.server.put(PATH, {**known, "status": {"memory": json.dumps({"version": VERSION + 1})}})
        else:
            room.job(spec={"template": WRONG})
        await room.look()
        assert room.condition(why), f"found {room.status()}"
        again = {"template": WRONG} if why == "InvalidSpec" else {}
        room.job(spec=again, deletionTimestamp="2026-01-31T12:00:00Z")
        await room.look()
        assert room.server.objects[PATH]["metadata"]["finalizers"] == [], "its deletion is blocked for ever"
        (event,) = room.server.named("events")
        assert event["reason"] == "CheckpointsStay" and why in event["message"], event

    within(story)


def test_an_unexpected_error_is_told_and_does_not_keep_the_job_from_its_end() -> None:
    async def story(room: Room) -> None:
        room.job()
        await room.look()
        room.cache.entries[KEY].progress = STRANGE
        room.job(deletionTimestamp="2026-01-31T12:00:00Z")
        room.cache.put_job(room.server.objects[PATH])
        await room.work()
        words = room.condition("OperatorError")
        assert words and "TypeError" in words, f"expected the trouble to be told, found {room.status()}"
        await room.work()
        assert room.status()["phase"] == "Deleting", "expected it to be worked without what its nodes say"
        assert room.condition("OperatorError"), "expected the trouble to be told until it is over"
        room.cache.entries[KEY].trouble_at -= FORGIVEN_SECONDS
        await room.work()
        assert room.condition("OperatorError") is None, "expected it to be forgiven"

    within(story)


def test_no_series_is_left_of_a_job_that_is_gone() -> None:
    async def story(room: Room) -> None:
        room.job()
        await room.look()
        metrics.GOODPUT.labels(*KEY).set(0.5)
        room.cache.drop_job(room.server.objects[PATH])
        await room.look_again()
        labels = dict(zip(("namespace", "job"), KEY, strict=True))
        assert metrics.REGISTRY.get_sample_value("aurl_job_goodput_ratio", labels) is None

    within(story)


def test_a_gang_follows_the_fewest_nodes() -> None:
    async def story(room: Room) -> None:
        gang = {"scheduling": {"gang": "Volcano"}}
        room.job(spec={**gang, "nodes": {"min": 1, "max": 1}})
        await room.look()
        (group,) = room.server.named("podgroups")
        assert group["spec"]["minMember"] == 1
        (pod,) = room.server.named("pods")
        room.job(spec={**gang, "nodes": {"min": 2, "max": 2}})
        await room.look()
        room.cache.drop_pod({"kind": "Pod", **pod}, time.time())
        await room.look_again()
        (store,) = [p for p in room.server.named("pods") if p["metadata"]["labels"][names.ROLE] == "store"]
        room.cache.put_pod(
            room.server.put(paths.pod(*KEY[:1], store["metadata"]["name"]), {**store, **READY})
        )
        await room.look_again()
        (group,) = room.server.named("podgroups")
        assert group["spec"]["minMember"] == 2, f"expected it to follow, found {group['spec']}"

    within(story)


@pytest.mark.parametrize("away", [False, True])
def test_a_pod_that_lost_its_label_while_no_operator_ran_lives(
    away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TRIES", 1)
    monkeypatch.setattr(controller, "GATHER_SECONDS", 0.0)

    async def story(room: Room) -> None:
        room.job()
        for _ in range(2):
            await room.look()
        (pod,) = room.server.named("pods")
        path, uid = room.path(pod), pod["metadata"]["uid"]
        assert uid in json.loads(room.status()["memory"])["live"]
        labels = {k: v for k, v in pod["metadata"]["labels"].items() if k != names.MANAGED_BY}
        room.server.put(path, {**pod, "metadata": {**pod["metadata"], "labels": labels}})
        room.forget()
        if away:
            room.server.away = (path,)
            with pytest.raises(ApiError):
                await room.look()
            room.server.away = ()
        await room.look()
        assert [p["metadata"]["uid"] for p in room.server.named("pods")] == [uid], "it lives: no other starts"
        assert uid in room.cache.entries[KEY].pods
        assert room.server.objects[path]["metadata"]["labels"][names.MANAGED_BY] == names.MANAGER
        assert not room.status().get("restarts")
        before = len(room.server.asked)
        await room.look()
        assert len(room.server.asked) == before, "expected one that is known to be asked for no more"

    within(story)


def test_a_pod_that_went_while_no_operator_ran_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "GATHER_SECONDS", 0.0)

    async def story(room: Room) -> None:
        room.job()
        for _ in range(2):
            await room.look()
        (pod,) = room.server.named("pods")
        del room.server.objects[room.path(pod)]
        room.forget()
        await room.look()
        assert room.status()["restarts"] == {"deleted": 1}

    within(story)


def test_a_job_that_was_made_anew_unseen_is_taken_as_it_is_now() -> None:
    """The watch of jobs is deaf, and what is known cannot be written any more."""

    async def story(room: Room) -> None:
        room.job()
        await room.look()
        (old,) = room.server.named("pods")
        known = room.server.objects.pop(PATH)
        room.server.put(PATH, {**known, "metadata": {**known["metadata"], "uid": "anew"}, "status": {}})
        room.lose(old)
        await room.work()
        assert room.cache.entries[KEY].uid == "anew", (
            "expected no second try under the version of the old one"
        )
        await room.work()
        assert room.status().get("memory"), f"expected the new one to be worked, found {room.status()}"

    within(story)


def test_a_pod_of_a_deleted_job_in_the_way_is_waited_for() -> None:
    async def story(room: Room) -> None:
        owner = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "bach", "uid": "before"}
        metadata = {"name": "bach-worker-0-0", "namespace": "music", "ownerReferences": [owner]}
        path = paths.pod("music", "bach-worker-0-0")
        old = {"kind": "Pod", **room.server.put(path, {"metadata": metadata})}
        room.job()
        await room.look()
        await room.look()
        assert "of a deleted job of this name: waits" in (room.condition("Waiting") or ""), room.status()
        del room.server.objects[path]
        assert room.cache.drop_pod(old, time.time()) == KEY, "expected the job to be looked at"
        await room.look()
        (pod,) = room.server.named("pods")
        assert pod["metadata"]["uid"] != old["metadata"]["uid"], "expected a pod of its own at once"

    within(story)


def test_a_pod_that_cannot_be_created_now_is_waited_for_with_the_servers_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "TRIES", 1)
    monkeypatch.setattr(controller, "GATHER_SECONDS", 0.0)
    monkeypatch.setattr(elastic, "RETRY_SECONDS", 0.0)
    words = 'failed calling webhook "x.example.org": connection refused'

    async def story(room: Room) -> None:
        room.job()
        room.server.broken = {("POST", "/pods"): words}
        for _ in range(4):
            await room.look()
        assert words in (room.condition("Waiting") or ""), f"found {room.status()}"
        assert f"music/bach: worker-0-0 refused: {words}" in caplog.text
        room.server.broken = {}
        for _ in range(2):
            await room.look()
        (pod,) = room.server.named("pods")
        assert pod["metadata"]["name"] == "bach-worker-0-0", "expected no number to be used up"
        assert words not in (room.condition("Waiting") or ""), f"found {room.status()}"

    within(story)


def test_a_pod_that_was_created_without_an_answer_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TRIES", 1)
    monkeypatch.setattr(controller, "GATHER_SECONDS", 0.0)

    async def story(room: Room) -> None:
        room.job()
        room.server.unanswered = (("POST", "/pods"),)
        for _ in range(3):
            await room.look()
        (pod,) = room.server.named("pods")
        assert pod["metadata"]["uid"] in room.cache.entries[KEY].pods
        assert "no answer" not in (room.condition("Waiting") or ""), f"found {room.status()}"

    within(story)
