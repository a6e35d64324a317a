"""Volcano's PodGroup of a job: without Volcano the job says what is missing, and starts when it is there."""

from __future__ import annotations

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
