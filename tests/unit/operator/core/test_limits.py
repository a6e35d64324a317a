"""Deadline, start time-out, suspension, and a failed job that is resumed."""

from __future__ import annotations

from typing import Any

import pytest

from aurl_operator.api.status import JobPhase
from aurl_operator.core.observed import LOCAL, End, Notice, Refusal, Role, State, Waiting, WaitingReason
from aurl_operator.core.plan import Plan
from aurl_operator.core.revive import revive
from aurl_trainer.contract import Cause, ExitCode
from tests.unit.operator.core.scene import Desk, died, make_job, reasons

PENDING: dict[str, Any] = {
    "state": State.WAITING,
    "ready": False,
    "waiting": Waiting(WaitingReason.UNSCHEDULABLE, "0/3 nodes"),
}


def test_the_deadline_fails_the_job_and_gives_its_nodes_notice() -> None:
    desk = Desk(make_job(activeDeadlineSeconds=100))
    desk.running()
    plan = desk.look(99.5 - 1.0)
    assert plan.outcome is None and plan.wake_after == pytest.approx(0.5)
    plan = desk.look(0.5)
    assert plan.outcome is not None and plan.outcome.reason == "DeadlineExceeded"
    assert [(s.name, s.kill) for s in plan.stops] == [("worker-0-0", False)]


def test_the_deadline_stops_what_runs_also_where_pods_are_to_stay() -> None:
    desk = Desk(make_job(nodes=2, activeDeadlineSeconds=100, cleanup={"pods": "None"}))
    desk.running()
    plan = desk.look(100.0)
    assert plan.outcome is not None and plan.outcome.reason == "DeadlineExceeded"
    assert {(s.name, s.kill) for s in plan.stops} == {("worker-0-0", False), ("worker-1-0", False)}
    desk.stop(plan)
    plan = desk.look(1.0)
    assert [(s.name, s.kill) for s in plan.stops] == [("store-0-0", False)], "expected the store to go last"
    desk.stop(plan)
    plan = desk.look(1.0)
    assert not plan.actions, f"expected what has ended to stay, found {plan.actions}"


def test_suspension_stops_the_clock_of_the_deadline() -> None:
    desk = Desk(make_job(activeDeadlineSeconds=100))
    desk.running()
    desk.suspended = True
    desk.stop(desk.look(10.0))
    desk.look(1.0)
    assert desk.look(500.0).outcome is None
    desk.suspended = False
    desk.start(desk.look(0.0))
    assert desk.look(80.0).outcome is None
    plan = desk.look(20.0)
    assert plan.outcome is not None and plan.outcome.reason == "DeadlineExceeded"


def test_suspension_gives_notice_then_gives_everything_back_and_goes_on_later() -> None:
    desk = Desk(make_job(nodes=2))
    desk.running()
    desk.suspended = True
    plan = desk.look()
    assert plan.status.phase is JobPhase.SUSPENDING
    assert {s.name for s in plan.stops} == {"worker-0-0", "worker-1-0"}, "the store goes last"
    desk.stop(plan)
    plan = desk.look(1.0)
    assert [s.name for s in plan.stops] == ["store-0-0"]
    desk.stop(plan)
    plan = desk.look(1.0)
    assert plan.status.phase is JobPhase.SUSPENDED and plan.wake_after is None
    assert plan.status.message == "interrupted; goes on when it is run again", "nobody has asked by the job"
    desk.suspended = False
    plan = desk.look(60.0)
    assert [s.name for s in plan.starts] == ["store-0-1"]
    desk.start(plan)
    assert {s.rdzv_id for s in desk.look(1.0).starts} == {"run-2"}
    assert desk.memory.incidents == ()


def test_a_job_that_is_suspended_from_the_start_starts_nothing() -> None:
    plan = Desk(make_job(suspend=True)).look()
    assert plan.status.phase is JobPhase.SUSPENDED and not plan.actions
    assert plan.status.message == "suspended; goes on when suspend is false"


def test_a_node_that_ignores_the_notice_is_killed() -> None:
    desk = Desk(make_job(terminationGracePeriodSeconds=20))
    desk.running()
    desk.suspended = True
    assert not desk.look().stops[0].kill
    desk.change("worker-0-0", stopping_since=desk.now)
    plan = desk.look(1.0)
    assert not plan.stops and plan.wake_after == pytest.approx(49.0)
    plan = desk.look(49.0)
    assert [s.kill for s in plan.stops] == [True]


def test_a_notice_that_comes_late_is_a_notice_still() -> None:
    desk = Desk(make_job(terminationGracePeriodSeconds=20))
    desk.running()
    desk.suspended = True
    desk.look()
    for _ in range(2):  # the operator was away, or the API server
        plan = desk.look(500.0)
        assert [(s.kill, s.grace_seconds) for s in plan.stops] == [(False, 20.0)], "expected time to save"
        assert not plan.urgent, "expected nothing to be written for that"
    desk.change("worker-0-0", stopping_since=desk.now)
    assert not desk.look(49.0).stops, "expected the grace period to count from when it was told"
    assert [s.kill for s in desk.look(1.0).stops] == [True]


def test_a_local_run_that_cannot_reach_its_minimum_fails_with_its_own_exit_code() -> None:
    desk = Desk(make_job(nodes=2, startTimeoutSeconds=60), LOCAL)
    desk.start(desk.look())
    plan = desk.look(1.0)
    desk.put(plan.starts[0])
    desk.put(plan.starts[1], **PENDING)
    desk.look(1.0)
    plan = desk.look(60.0)
    assert plan.outcome is not None and plan.outcome.exit_code == ExitCode.NO_CAPACITY
    assert "1 of at least 2 nodes ready" in plan.outcome.message and "0/3 nodes" in plan.outcome.message


def test_a_cluster_gives_back_what_it_holds_waits_and_tries_again() -> None:
    desk = Desk(make_job(nodes=2, startTimeoutSeconds=60))
    desk.start(desk.look())
    plan = desk.look(1.0)
    desk.put(plan.starts[0])
    desk.put(plan.starts[1], **PENDING)
    assert reasons(desk.look(1.0))["Waiting"] == "Unschedulable"
    plan = desk.look(60.0)
    assert {s.name for s in plan.stops} == {"worker-0-0", "worker-1-0"} and plan.outcome is None
    desk.stop(plan)
    plan = desk.look(1.0)
    assert reasons(plan) == {"Waiting": "NoCapacity"} and not plan.starts
    plan = desk.look(30.0)
    assert [s.rdzv_id for s in plan.starts] == ["run-2", "run-2"]
    assert desk.memory.incidents == (), "waiting for machines is no incident"


def test_a_gang_scheduler_is_waited_for() -> None:
    desk = Desk(make_job(nodes=2, startTimeoutSeconds=60, scheduling={"gang": "Kueue"}))
    desk.start(desk.look())
    for start in desk.look(1.0).starts:
        desk.put(start, **PENDING)
    desk.look(1.0)
    assert not desk.look(1000.0).stops


def test_what_can_never_start_fails_the_job_at_once() -> None:
    desk = Desk(make_job())
    waiting = Waiting(WaitingReason.IMAGE, "image name is invalid", final=True)
    desk.start(desk.look(), state=State.WAITING, ready=False, waiting=waiting)
    plan = desk.look(1.0)
    assert plan.outcome is not None and plan.outcome.reason == "CannotStart"
    assert "image name is invalid" in plan.outcome.message


@pytest.mark.parametrize("mended", ["the job", "its surroundings"])
def test_a_job_that_failed_since_its_pod_was_refused_goes_on_when_that_is_mended(mended: str) -> None:
    desk = Desk(make_job())
    desk.generation = 1
    desk.look()
    refused = Waiting(WaitingReason.REFUSED, "volume x: not found", final=True)
    desk.refusals = (Refusal(Role.NODE, 0, 0, refused, desk.now, generation=1),)
    assert desk.look(1.0).outcome is not None, "expected what can never start to fail the job"
    if mended == "the job":
        desk.generation = 2
    desk.resume = "token"
    plan = desk.look(100.0)
    assert plan.outcome is None, f"expected the old refusal not to count, found {plan.outcome}"
    assert [s.name for s in plan.starts] == ["worker-0-0"]
    desk.refusals = (Refusal(Role.NODE, 0, 0, refused, desk.now, desk.generation, desk.resume),)
    assert desk.look(1.0).outcome is not None, "expected a refusal of what was mended to count again"


def test_a_resumed_job_replaces_the_pod_that_could_not_start() -> None:
    desk = Desk(make_job(cleanup={"pods": "None"}))
    waiting = Waiting(WaitingReason.IMAGE, "image name is invalid", final=True)
    desk.start(desk.look(), state=State.WAITING, ready=False, waiting=waiting)
    assert desk.look(1.0).outcome is not None
    desk.resume = "token"
    plan = desk.look(100.0)
    assert plan.outcome is None and [(s.name, s.kill) for s in plan.stops] == [("worker-0-0", True)]
    assert desk.look(1.0).outcome is None, "expected a pod on its way out not to fail the job again"
    desk.end("worker-0-0", End(desk.now, signal=9))
    assert [s.name for s in desk.look(1.0).starts] == ["worker-0-1"]
    assert desk.memory.restarts == {}, "expected no loss to be charged"


def test_a_refusal_from_before_a_change_is_not_named_any_more() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 3}))
    desk.generation = 1
    desk.running()
    desk.end("worker-2-0", died(desk.now, Cause.PREEMPTED))
    desk.look(1.0)
    waiting = Waiting(WaitingReason.QUOTA, "exceeded quota: pods")
    desk.refusals = (Refusal(Role.NODE, 2, 1, waiting, desk.now, generation=1),)
    assert "Quota" in _degraded(desk.look(10.0))
    desk.job = make_job(nodes={"min": 1, "max": 4})
    desk.generation = 2
    assert "Quota" not in _degraded(desk.look(1.0))


def test_a_refusal_of_a_node_that_is_not_missing_any_more_is_not_named() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.change("worker-0-0", notice=Notice(desk.now, "spot"))
    assert [s.name for s in desk.look(1.0).starts] == ["worker-2-0"]
    quota = Waiting(WaitingReason.QUOTA, "exceeded quota: pods")
    desk.refusals = (Refusal(Role.NODE, 2, 0, quota, desk.now),)
    desk.end("worker-0-0", End(desk.now, exit_code=79, disrupted=True))
    assert "Quota" in _degraded(desk.look(1.0)), "expected the last word about the missing node"
    plan = desk.look(20.0)
    assert [s.name for s in plan.starts] == ["worker-0-1"]
    no_room = Waiting(WaitingReason.UNSCHEDULABLE, "0/3 machines have room")
    desk.start(plan, state=State.WAITING, ready=False, waiting=no_room)
    assert _degraded(desk.look(1.0)) == "1 of 2 nodes; Unschedulable: 0/3 machines have room"


def test_a_refusal_is_named_while_its_start_is_tried_again() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("worker-1-0", died(desk.now, Cause.PREEMPTED))
    desk.look(1.0)
    quota = Waiting(WaitingReason.QUOTA, "exceeded quota: pods")
    desk.refusals = (Refusal(Role.NODE, 1, 1, quota, desk.now),)
    before = desk.look(1.0)
    again = desk.look(20.0)
    assert [s.name for s in again.starts] == ["worker-1-1"]
    assert _degraded(again) == _degraded(before) == "1 of 2 nodes; Quota: exceeded quota: pods"


def _degraded(plan: Plan) -> str:
    return next(c.message for c in plan.status.conditions if c.type == "Degraded")


def test_a_failed_job_can_be_revived_with_fresh_budgets_and_the_next_attempt() -> None:
    desk = Desk(make_job(recovery={"crashes": {"limit": 0}}))
    desk.running()
    desk.end("worker-0-0", died(desk.now))
    assert desk.look().outcome is not None
    desk.memory = revive(desk.memory)
    plan = desk.look(100.0)
    assert plan.outcome is None and [s.name for s in plan.starts] == ["worker-0-1"]
    assert plan.status.restarts == {"crash": 1}, "what happened stays in the books"


def test_a_resumed_job_meets_anew_once_the_nodes_of_before_have_left() -> None:
    """A node that ended by a final error has closed its rendezvous: who comes there ends as it did."""
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("worker-1-0", died(desk.now, Cause.FINAL_ERROR))
    assert desk.look(1.0).outcome is not None
    desk.change("worker-0-0", stopping_since=desk.now)  # it saves
    desk.resume = "token"
    plan = desk.look(1.0)
    assert plan.outcome is None and not plan.starts, "expected to wait for the node that still leaves"
    desk.end("worker-0-0", died(desk.now, Cause.PREEMPTED))
    assert {(s.name, s.rdzv_id) for s in desk.look(1.0).starts} == {
        ("worker-0-1", "run-2"),
        ("worker-1-1", "run-2"),
    }


def test_a_job_resumed_while_it_is_suspended_meets_anew_when_it_goes_on() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}, cleanup={"pods": "None"}))
    desk.running()
    desk.end("worker-1-0", died(desk.now, Cause.FINAL_ERROR))
    assert not desk.look(1.0).stops
    desk.resume, desk.suspended = "token", True
    assert [s.name for s in desk.look(1.0).stops] == ["worker-0-0"]
    desk.change("worker-0-0", stopping_since=desk.now)
    desk.suspended = False
    assert not desk.look(1.0).starts, "expected to wait for the node that still leaves"
    desk.end("worker-0-0", died(desk.now, Cause.PREEMPTED))
    assert {s.rdzv_id for s in desk.look(1.0).starts} == {"run-2"}


def test_a_resumed_job_gives_up_the_pod_that_never_ran_in_the_rendezvous_that_is_closed() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}, cleanup={"pods": "None"}))
    desk.start(desk.look())
    first, second = desk.look(1.0).starts
    desk.put(first)
    desk.put(second, **PENDING)
    desk.look(1.0)
    desk.end(first.name, died(desk.now, Cause.FINAL_ERROR))
    assert desk.look(1.0).outcome is not None
    desk.resume = "token"
    plan = desk.look(60.0)
    assert [s.name for s in plan.stops] == [second.name] and not plan.starts
    desk.stop(plan)
    assert {s.rdzv_id for s in desk.look(1.0).starts} == {"run-2"}
