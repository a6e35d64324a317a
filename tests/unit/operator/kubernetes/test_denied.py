"""Rights that are missing where it seldom shows; the others: tests/integration/apiserver/test_rights.py."""

from __future__ import annotations

import time

import pytest

from aurl_operator.core.names import rfc3339
from tests.unit.operator.kubernetes.room import PATH, Room, within

SCHEDULED = {"type": "PodScheduled", "status": "True"}


def told(room: Room) -> list[str]:
    return [e["message"] for e in room.server.named("events") if e["reason"] == "Forbidden"]


def test_a_conflict_after_which_the_job_cannot_be_read() -> None:
    async def story(room: Room) -> None:
        room.job()
        room.cache.put_job(room.server.objects[PATH])
        room.job()
        room.server.forbidden = (("GET", "/aurltrainingjobs/"),)
        await room.work()
        (words,) = told(room)
        assert "cannot GET /aurltrainingjobs/" in words and "docs/security.md" in words
        await room.work()
        assert len(told(room)) == 1, f"expected it to be told once, found {told(room)}"

    within(story)


def test_events_that_cannot_be_looked_up_are_written_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async def story(room: Room) -> None:
        room.job()
        await room.look()
        (pod,) = room.server.named("pods")
        room.cache.drop_pod({"kind": "Pod", **pod}, time.time())
        await room.look()
        before = room.events()
        assert "Deleted" in before
        room.server.forbidden = (("GET", "/events/"),)
        room.forget()
        await room.look()
        assert room.events() == before, "expected an operator that was restarted to tell nothing twice"
        assert "events cannot be looked up: " in caplog.text

    within(story)


def test_a_volume_whose_trouble_cannot_be_read() -> None:
    async def story(room: Room) -> None:
        room.job()
        await room.look()
        (pod,) = room.server.named("pods")
        since = rfc3339(time.time() - 60)
        status = {"phase": "Pending", "conditions": [{**SCHEDULED, "lastTransitionTime": since}]}
        path = next(at for at in room.server.objects if at.endswith(pod["metadata"]["name"]))
        room.cache.put_pod({"kind": "Pod", **room.server.put(path, {**pod, "status": status})})
        room.server.forbidden = (("GET", "/events"),)
        await room.mounts.look(time.time())
        await room.look()
        assert any("cannot GET /events" in words for words in told(room)), f"found {told(room)}"
        assert room.status()["phase"] == "Starting", "expected the job to go on"

    within(story)


def test_the_name_of_the_object_is_no_part_of_the_right() -> None:
    async def story(room: Room) -> None:
        room.job()
        await room.look()
        room.server.forbidden = (("DELETE", "/pods/"),)
        room.job(spec={"suspend": True})
        for _ in range(3):
            room.cache.put_job(room.server.objects[PATH])
            await room.work()
        (words,) = told(room)
        assert words.endswith('User "operator" cannot DELETE /pods/'), words

    within(story)
