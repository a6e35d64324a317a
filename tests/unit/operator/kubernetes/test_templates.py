"""A template that no pod can be made with is told in the job's words, once."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tests.unit.operator.kubernetes.room import PATH, Room, within

DEEP: dict[str, Any] = functools.reduce(lambda inner, _: {"deeper": inner}, range(5000), {})


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"spec": {"tolerations": {"key": "gpu"}}}, "spec.template.spec.tolerations: expected a list"),
        ({"spec": {"strange": DEEP}}, "no pod can be made of it (RecursionError)"),
    ],
)
def test_a_template_of_the_wrong_shape_is_told_once(
    template: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(room: Room) -> None:
        room.job()
        job = room.server.objects[PATH]
        spec = {**job["spec"], "template": template}
        room.cache.put_job({**job, "spec": spec})
        await room.work()
        assert words in (room.condition("InvalidSpec") or ""), room.status()
        await room.work()
        assert len([r for r in caplog.records if r.exc_info]) == ("Recursion" in words)
        assert not room.server.named("pods")

    within(story)
