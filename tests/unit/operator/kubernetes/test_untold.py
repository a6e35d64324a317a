"""What no watch and no list has told: labels and pods that went, a job made anew, old pods in the way."""

from __future__ import annotations

import json
import time

import pytest

from aurl_operator.api import names
from aurl_operator.backends.kubernetes import controller
from aurl_operator.backends.kubernetes.client import api as client
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.errors import ApiError
from tests.unit.operator.kubernetes.room import KEY, PATH, Room, within


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
