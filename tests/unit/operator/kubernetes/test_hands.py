"""What the operator knows right after it has acted, before any watch has told."""

from __future__ import annotations

import pytest

from aurl_operator.core.plan import DeleteJob, Remove
from tests.unit.operator.kubernetes.room import KEY, PATH, Room, within


@pytest.mark.parametrize("held", [False, True])
def test_a_pod_that_somebody_holds_is_gone_when_it_is_gone(held: bool) -> None:
    """One that was taken for gone would come back by a list, when its end is long booked and forgotten."""

    async def story(room: Room) -> None:
        room.job()
        await room.look()
        (pod,) = room.server.named("pods")
        uid, entry = pod["metadata"]["uid"], room.cache.entries[KEY]
        if held:
            metadata = {**pod["metadata"], "finalizers": ["kueue.x-k8s.io/managed"]}
            put = room.server.put(room.path(pod), {**pod, "metadata": metadata})
            room.cache.put_pod({"kind": "Pod", **put})
        assert await room.hands.act(entry, Remove(uid, "worker-0-0")), "expected something to have changed"
        assert (uid in entry.vanished) is not held
        assert not await room.hands.act(entry, Remove(uid, "worker-0-0")), "expected no look for nothing"

    within(story)


@pytest.mark.parametrize("held", [False, True])
def test_a_job_that_was_deleted_is_known_to_be(held: bool) -> None:
    """Else each look would delete it again, as long as the watch lags."""

    async def story(room: Room) -> None:
        room.job(**({"finalizers": ["example.org/held"]} if held else {}))
        await room.look()
        entry = room.cache.entries[KEY]
        await room.hands.act(entry, DeleteJob())
        if held:
            assert "deletionTimestamp" in entry.job["metadata"]
            assert PATH in room.server.objects
        else:
            assert KEY not in room.cache.entries

    within(story)
