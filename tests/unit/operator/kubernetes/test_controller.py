"""Looks at a job while the API server fails in between, and at jobs that this operator cannot work."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Any

import pytest

from aurl_operator import metrics
from aurl_operator.api import names
from aurl_operator.backends.kubernetes import controller
from aurl_operator.backends.kubernetes.act.heard import keeping
from aurl_operator.backends.kubernetes.client import api as client
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.controller import FORGIVEN_SECONDS, UNTOLD_SECONDS
from aurl_operator.core.memory import VERSION
from aurl_operator.core.names import rfc3339
from aurl_operator.core.policies import elastic
from aurl_trainer.contract import Cause, Progress, Termination
from tests.unit.operator.kubernetes.room import KEY, PATH, READY, STRANGE, WRONG, Room, within


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


@pytest.mark.parametrize(("age", "told"), [(60.0, True), (UNTOLD_SECONDS + 60, False)])
def test_what_was_told_so_long_ago_that_its_event_is_gone_is_not_told_again(age: float, told: bool) -> None:
    async def story(room: Room) -> None:
        room.job()
        await room.look()
        (pod,) = room.server.named("pods")
        room.cache.drop_pod({"kind": "Pod", **pod}, time.time())
        await room.look()
        assert "Deleted" in room.events()
        job = room.server.objects[PATH]
        memory = json.loads(job["status"]["memory"])
        for entry in memory["outbox"]:
            entry["at"] -= age
        status = {**job["status"], "memory": json.dumps(memory)}
        room.server.put(PATH, {**job, "status": status})
        for path in [path for path in room.server.objects if "/events/" in path]:
            del room.server.objects[path]
        room.forget()
        await room.look()
        assert ("Deleted" in room.events()) is told, f"found {room.events()}"

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


@pytest.mark.parametrize("finished", [True, False])
def test_what_a_predecessor_heard_stands_until_the_nodes_ends_tell_more(
    finished: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that has finished is never asked again: the status would say for ever how far it once was."""
    monkeypatch.setattr(controller, "GATHER_SECONDS", 0.0)

    async def story(room: Room) -> None:
        room.job()
        await room.look()
        (pod,) = room.server.named("pods")
        running = {"phase": "Running", "podIP": "192.0.2.1", "containerStatuses": [trainer(RUNNING)]}
        room.cache.put_pod(room.server.put(room.path(pod), {**pod, "status": running}))
        await room.look()
        heard = Progress(0, 1, 1, "step", step=50, total_steps=100, at=time.time(), eta_seconds=9.0)
        saved = {"last_durable_step": 40, "last_durable_name": "v4", "resumed_from": 20}
        room.cache.entries[KEY].progress = dataclasses.replace(heard, **saved)
        await room.look()
        before = room.status()
        room.forget()
        if finished:
            end = {"exitCode": 0, "finishedAt": rfc3339(time.time()), "message": well(100, "v10")}
            ended = {**running, "phase": "Succeeded", "containerStatuses": [trainer({"terminated": end})]}
            room.server.put(room.path(pod), {**pod, "status": ended})
        room.cache.put_pod(room.server.objects[room.path(pod)])
        await room.look()
        await room.look()
        if finished:
            assert room.status()["phase"] == "Succeeded"
            assert room.status()["progress"] == {"step": 100, "total": 100, "music": {}}
            newest = {"lastDurableStep": 100, "lastDurableName": "v10"}
            assert room.status()["checkpoint"] == {**newest, "resumedFrom": 20, "damaged": []}
        else:
            assert room.status() == before, "expected nothing to be written"

    within(story)


def test_a_memory_built_anew_leaves_what_is_told_of_checkpoints() -> None:
    told = {"lastDurableStep": 40, "lastDurableName": "v4", "resumedFrom": 20, "damaged": ["v3"]}
    before = {"progress": {"step": 50, "total": 100}, "checkpoint": told}
    anew = {"phase": "Running", "checkpoint": {"damaged": []}}
    assert keeping(before, anew) == {**before, "phase": "Running"}
    known = keeping(before, {**anew, "checkpoint": {"lastDurableStep": 60}})["checkpoint"]
    rest = {"resumedFrom": 20, "damaged": ["v3"]}
    assert known == {"lastDurableStep": 60, **rest}, "expected no step under another one's name"


RUNNING = {"running": {"startedAt": "2026-01-31T12:00:00Z"}}


def trainer(state: dict[str, Any]) -> dict[str, Any]:
    return {"name": names.TRAINER_CONTAINER, "state": state}


def well(step: int, name: str) -> str:
    end = Termination(Cause.SUCCEEDED, "finished", 0, time.time(), durable_step=step, durable_name=name)
    return end.to_json()
