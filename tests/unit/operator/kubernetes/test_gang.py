"""Volcano's PodGroup of a job: there for each node that starts; without Volcano the job says so."""

from __future__ import annotations

import pytest

from aurl_operator.backends.kubernetes.act import beside
from aurl_operator.backends.kubernetes.client import paths
from tests.unit.operator.kubernetes.room import KEY, Room, within

GANG = {"scheduling": {"gang": "Volcano"}}


def test_a_job_for_volcano_waits_until_it_is_installed() -> None:
    async def story(room: Room) -> None:
        room.server.unknown = ("/podgroups",)
        room.job(spec=GANG)
        await room.look()
        await room.look()
        said = room.condition("Waiting") or ""
        assert "Volcano is not installed" in said and "install it" in said, said
        assert not room.server.named("pods"), "expected no pod that nobody would schedule"
        room.server.unknown = ()
        room.cache.entries[KEY].refusals.clear()
        await room.look()
        await room.look()
        assert room.server.named("podgroups") and room.server.named("pods"), room.status()

    within(story)


def test_a_namespace_that_is_gone_is_not_taken_for_a_missing_volcano() -> None:
    async def story(room: Room) -> None:
        room.server.missing = ("/podgroups",)
        room.job(spec=GANG)
        await room.look()
        await room.look()
        assert 'namespaces "music" not found' in (room.condition("Waiting") or ""), room.status()

    within(story)


def test_a_replacement_finds_a_group_that_somebody_has_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "LATELY_SECONDS", 0.0)

    async def story(room: Room) -> None:
        room.job(spec={**GANG, "recovery": {"preemptions": {"backoff": {"initialSeconds": 0}}}})
        await room.look()
        (group,), (pod,) = room.server.named("podgroups"), room.server.named("pods")
        del room.server.objects[paths.pod_group(KEY[0], group["metadata"]["name"])]
        room.lose(pod)
        await room.look_again()
        await room.look_again()
        assert room.server.named("pods"), f"expected a replacement, found {room.status()}"
        assert room.server.named("podgroups"), "expected what it is to wait with"

    within(story)
