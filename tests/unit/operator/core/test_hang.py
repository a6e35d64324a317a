"""When a job that stands still is killed and charged, and when silence is no hang."""

from __future__ import annotations

import dataclasses

import pytest

from aurl_operator.core.observed import End
from aurl_operator.core.policies import hang
from aurl_trainer.contract import Cause
from tests.unit.operator.core.scene import Desk, died, make_job, progress


def test_a_world_that_stands_still_is_killed_and_charged_as_one_hang() -> None:
    desk = Desk(make_job(nodes=2, recovery={"hang": {"limits": {"step": 100}}}))
    desk.running()
    desk.progress = progress(desk.now, 5)
    desk.look()
    assert not desk.look(100 + hang.MARGIN - 1).stops
    plan = desk.look(1.0)
    assert {(s.name, s.kill) for s in plan.stops} == {("worker-0-0", True), ("worker-1-0", True)}
    assert plan.status.restarts == {"hang": 1}
    for name in ("worker-0-0", "worker-1-0"):
        desk.end(name, End(desk.now, signal=9))
    desk.look(1.0)
    assert desk.memory.restarts == {"hang": 1}, "the kills are ours"


def test_an_operator_that_was_away_judges_only_what_it_has_seen_itself() -> None:
    desk = Desk(make_job(nodes=2, recovery={"hang": {"limits": {"step": 100}}}))
    desk.running()
    desk.progress = progress(desk.now, 5)
    desk.look()
    heard, desk.progress, desk.reached_since = desk.progress, None, None
    plan = desk.look(10_000.0)
    assert not plan.stops and not plan.urgent, "expected no verdict and no write before anything was heard"
    desk.reached_since = desk.now
    assert not desk.look(100 + hang.MARGIN - 1).stops, "expected the absence to count for nothing"
    desk.progress = heard
    assert len(desk.look(1.0).stops) == 2, "expected what is seen to stand still to be judged all the same"


def test_nodes_that_cannot_be_reached_are_not_judged() -> None:
    desk = Desk(make_job(recovery={"hang": {"limits": {"step": 100}}}))
    desk.running()
    desk.progress = progress(desk.now, 5)
    desk.look()
    desk.reached_since = None
    for _ in range(5):
        assert not desk.look(1000.0).stops, "expected a cut network not to be taken for a hang"
    assert not desk.memory.restarts


def test_a_step_within_which_the_rank_lives_is_no_hang_until_the_signs_end() -> None:
    desk = Desk(make_job(nodes=2, recovery={"hang": {"limits": {"step": 100}}}))
    desk.running()
    told = progress(desk.now, 5)
    for _ in range(10):
        desk.progress = dataclasses.replace(told, alive_at=desk.now)
        assert not desk.look(90.0).stops, "expected a micro-batch to count as the agents count it"
    assert not desk.look(100 + hang.MARGIN - 91).stops
    assert desk.look(1.0).stops, "expected the limit to count from the last sign of life"


def test_a_long_evaluation_is_no_hang() -> None:
    desk = Desk(make_job(recovery={"hang": {"limits": {"step": 100, "evaluate": 5000}}}))
    desk.running()
    desk.progress = progress(desk.now, 5, phase="evaluate")
    desk.look()
    assert not desk.look(4000.0).stops


BEFORE_A_STEP = 600 + 1800 + 1800 + 1800 + 1800 + 300
"""The default limits of what a world may do in silence."""


def replaced_while_it_trained() -> Desk:
    """Its only node was preempted, and the next one is there."""
    desk = Desk(make_job())
    desk.running()
    desk.progress = progress(desk.now, 100, durable=100, world=1)
    desk.look(1.0)
    desk.end("worker-0-0", died(desk.now, Cause.PREEMPTED))
    desk.start(desk.look(60.0))
    return desk


def test_a_world_that_loads_in_silence_is_no_hang() -> None:
    desk = replaced_while_it_trained()
    desk.look(1.0)
    for _ in range(10):  # it fetches its music and loads, and nobody is told of it
        assert not desk.look(100.0).stops, "expected time to start and to load"
    desk.progress = progress(desk.now, 101, 2, durable=100, world=1)
    desk.look()
    assert len(desk.look(300 + hang.MARGIN).stops) == 1, (
        "expected the step's own limit from its first step on"
    )


def test_a_world_that_never_comes_to_its_first_step_is_a_hang() -> None:
    desk = replaced_while_it_trained()
    desk.look()
    assert not desk.look(BEFORE_A_STEP + hang.MARGIN - 1).stops
    assert [s.kill for s in desk.look(1.0).stops] == [True]
    assert desk.memory.restarts == {"preempted": 1, "hang": 1}


@pytest.mark.parametrize("change", ["a node is lost", "a node joins", "a node is replaced"])
def test_nodes_that_form_another_world_load_in_silence_though_enough_were_there_all_along(
    change: str,
) -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.progress = progress(desk.now, 100, durable=100, world=1 if change == "a node joins" else 2)
    desk.look(1.0)
    if change != "a node joins":
        desk.end("worker-1-0", died(desk.now, Cause.PREEMPTED))
    if change == "a node is replaced":
        desk.start(desk.look(5.0))
    for _ in range(10):
        plan = desk.look(100.0)
        assert not plan.stops, f"expected time to load, found {plan.stops}"
    assert len(desk.look(BEFORE_A_STEP).stops) == sum(p.end is None for p in desk.processes.values()) - 1


def test_a_job_whose_progress_was_never_seen_is_not_judged() -> None:
    desk = Desk(make_job())
    desk.running()
    assert not desk.look(1_000_000.0).stops, "silence alone says nothing"
