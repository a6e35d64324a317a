"""A child that dies costs the file it had, and no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from aurl_trainer.data.readers import Answer, Task, run
from aurl_trainer.errors import MissingError

MODULE = "tests.unit.trainer.data.dying_reader"
pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def find_this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(__file__).parents[4])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))


@pytest.fixture(autouse=True)
def no_child_outlives_its_pool() -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    left = set(psutil.Process().children(recursive=True)) - before
    assert not left, f"children left behind: {left}"


def answers(tasks: list[Task], processes: int = 2) -> dict[int, Answer]:
    found = list(run(tasks, {}, processes, MODULE))
    assert sorted(a.index for a in found) == [t.index for t in tasks], "each task is answered once"
    return {a.index: a for a in found}


def test_every_task_is_answered_by_as_many_children_as_asked_for() -> None:
    found = answers([Task(i, {}, bytes([i, 0])) for i in range(20)], processes=3)
    assert all(found[i].frames == (bytes([0, i]),) for i in range(20))
    assert len({a.head["process"] for a in found.values()}) <= 3


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("segfault", "crashes the process that reads it (SIGSEGV)"),
        ("abort", "crashes the process that reads it (SIGABRT)"),
        ("exit", "crashes the process that reads it (exit status 3)"),
        ("spin", "takes too long to read"),
        ("half", "exhausts the memory of the process that reads it"),
    ],
)
def test_a_crash_costs_one_file_and_names_it(do: str, reason: str) -> None:
    found = answers([Task(i, {"do": do} if i == 3 else {}, b"ab") for i in range(8)])
    assert found[3].failure == reason
    for i in {0, 1, 2, 4, 5, 6, 7}:
        assert found[i].failure is None and found[i].frames == (b"ba",), f"task {i} must not suffer"


def test_a_child_that_answers_nonsense_is_replaced() -> None:
    found = answers([Task(0, {"do": "nonsense"}), Task(1, {}, b"ab")], processes=1)
    assert found[0].failure is not None
    assert found[1].frames == (b"ba",)


def test_a_death_that_was_somebody_elses_doing_costs_nothing(tmp_path: Path) -> None:
    found = answers([Task(0, {"do": "once", "flag": str(tmp_path / "died")}, b"ab"), Task(1, {}, b"cd")])
    assert (tmp_path / "died").exists()
    assert found[0].frames == (b"ba",), "the second attempt succeeds"


def test_all_may_crash() -> None:
    found = answers([Task(i, {"do": "abort"}) for i in range(4)])
    assert all(a.failure is not None for a in found.values())


def test_what_a_child_refuses_is_its_answer() -> None:
    assert answers([Task(0, {"do": "refuse"})])[0].failure == "not today"


def test_no_tasks_need_no_children() -> None:
    assert answers([]) == {}


def test_a_child_that_cannot_start_is_not_the_files_fault() -> None:
    with pytest.raises(MissingError, match="cannot start: No module named 'parser'"):
        list(run([Task(0, {})], {"broken": True}, 1, MODULE))


def test_leaving_early_leaves_no_child() -> None:
    stream = run((Task(i, {}) for i in range(100)), {}, 2, MODULE)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
