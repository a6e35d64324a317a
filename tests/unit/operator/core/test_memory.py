from __future__ import annotations

import json

import pytest

from aurl_operator.core.memory import VERSION, Memory, MemoryFormatError
from tests.unit.operator.core.scene import Desk, died, make_job, progress


def test_a_memory_with_everything_in_it_survives_json() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.progress = progress(desk.now, 10, durable=10)
    desk.end("worker-1-0", died(desk.now))
    desk.suspended = True
    plan = desk.look()
    assert Memory.from_json(plan.memory.to_json()) == plan.memory
    assert plan.memory.outbox == plan.ledger != ()


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"version": 1, "round": "many"}', '{"live": 3}'])
def test_a_damaged_memory_is_refused(text: str) -> None:
    with pytest.raises(MemoryFormatError, match="damaged"):
        Memory.from_json(text)


def test_a_newer_memory_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(MemoryFormatError, match="newer Aurl; upgrade"):
        Memory.from_json(json.dumps({"version": VERSION + 1, "live": 3}))


def test_what_another_operator_of_this_version_remembers_outlives_a_look_of_ours() -> None:
    desk = Desk(make_job())
    desk.memory = Memory.from_json('{"version": 1, "round": 3, "mood": {"now": "good"}}')
    assert desk.memory.round == 3
    kept = json.loads(desk.look().memory.to_json())
    assert kept["mood"] == {"now": "good"}, f"expected it to stay, found {kept}"
