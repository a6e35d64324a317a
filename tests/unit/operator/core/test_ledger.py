from __future__ import annotations

import pytest

from aurl_operator.core.accounts import ledger
from aurl_operator.core.observed import End, State
from aurl_operator.core.plan import Plan
from aurl_trainer.contract import LedgerEntry
from tests.unit.operator.core.scene import T0, Desk, died, killed, kinds, make_job, progress


def recovered(entries: tuple[LedgerEntry, ...]) -> LedgerEntry:
    (entry,) = [e for e in entries if e.kind == "recovered"]
    return entry


def test_an_incident_is_over_at_the_first_new_step_and_not_before() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    lost_at = desk.now + 10
    desk.progress = progress(lost_at - 1, 17, durable=10, productive_seconds=17.0)
    desk.look(10.0)
    desk.end("worker-1-0", killed(lost_at))
    (incident,) = [e for e in desk.look().ledger if e.kind == "incident"]
    assert incident.step == 17
    desk.progress = progress(lost_at + 6, 12, 2, durable=10, resumed_from=10, productive_seconds=12.0)
    assert not [e for e in desk.look(6.0).ledger if e.kind == "recovered"], "step 12 had been done before"
    desk.progress = progress(lost_at + 12, 18, 2, durable=10, resumed_from=10, productive_seconds=18.0)
    over = recovered(desk.look(6.0).ledger)
    assert over.id == incident.id
    assert over.recovery_seconds == pytest.approx(6.0)
    assert over.lost_seconds == pytest.approx(12.0)
    assert over.steps_redone == 7
    assert desk.plan is not None
    assert desk.plan.status.goodput.lost_seconds == {"node-lost": 12.0}


def test_a_step_that_the_old_world_finished_unreported_is_not_taken_for_recovery() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.progress = progress(desk.now, 17)
    desk.look()
    desk.end("worker-1-0", killed(desk.now + 1))
    desk.look(1.0)
    desk.progress = progress(desk.now + 1, 18)
    assert not [e for e in desk.look(1.0).ledger if e.kind == "recovered"]
    (incident,) = desk.memory.incidents
    assert incident.furthest == 18


def test_a_replacement_that_is_lost_before_it_joins_costs_nothing_while_the_others_train_on() -> None:
    at_once = {"backoff": {"initialSeconds": 0}}
    desk = Desk(make_job(nodes={"min": 1, "max": 2}, recovery={"nodeLost": at_once, "preemptions": at_once}))
    desk.running()
    lost_at = desk.now
    desk.progress = progress(lost_at, 5)
    desk.look()
    desk.end("worker-1-0", killed(lost_at))
    desk.start(desk.look(), state=State.WAITING, ready=False)
    desk.progress = progress(lost_at + 5, 6, 2, resumed_from=5)
    recovered(desk.look(5.0).ledger)
    desk.end("worker-1-1", End(desk.now, disrupted=True, message="spot"))
    preempted_at = desk.now
    assert kinds(desk.look(), "incident") == ["preempted"]
    told = [_a_step(desk, 6 + i) for i in range(1, 20)]
    over = recovered(tuple(e for plan in told for e in plan.ledger))
    assert (over.cause, over.lost_seconds, over.recovery_seconds) == ("preempted", 0.0, 0.0)
    assert desk.memory.lost_seconds == {"node-lost": 5.0}
    assert over.at <= preempted_at + ledger.OUTLIVED_SECONDS + 20


def test_a_step_of_the_lost_world_that_is_told_late_ends_nothing() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    lost_at = desk.now
    desk.progress = progress(lost_at, 17)
    desk.look()
    desk.end("worker-1-0", killed(lost_at + 1))
    desk.look(1.0)
    for after in (100.0, 200.0):
        desk.progress = progress(lost_at + after, 18)
        assert not kinds(desk.look(100.0), "recovered"), (
            "expected a step that may be from before to end nothing"
        )
    desk.progress = progress(lost_at + 300, 19, 2, resumed_from=18)
    assert recovered(desk.look(100.0).ledger).lost_seconds == pytest.approx(299.0)


def _a_step(desk: Desk, step: int) -> Plan:
    """Ten seconds later the second world has made it."""
    desk.progress = progress(desk.now + 10, step, 2, resumed_from=5)
    return desk.look(10.0)


def test_overlapping_incidents_share_the_time_and_never_count_it_twice() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.progress = progress(desk.now, 5)
    desk.look()
    began = desk.now
    desk.end("worker-1-0", killed(began))
    desk.look()
    desk.end("worker-0-0", died(began + 20))
    desk.look(20.0)
    desk.progress = progress(began + 50, 6, 2)
    desk.look(30.0)
    assert desk.memory.lost_seconds == pytest.approx({"node-lost": 20.0, "crash": 30.0})


def test_old_answers_are_passed_over() -> None:
    desk = Desk(make_job())
    desk.running()
    desk.progress = progress(desk.now, 20, durable=20)
    desk.look()
    desk.progress = progress(desk.now - 5, 15, durable=10)
    plan = desk.look()
    assert (desk.memory.furthest_step, desk.memory.durable_step) == (20, 20)
    assert not plan.urgent


def test_progress_alone_is_not_urgent_but_a_new_generation_is() -> None:
    desk = Desk(make_job())
    desk.running()
    desk.look()
    desk.progress = progress(desk.now + 1, 1)
    assert desk.look(1.0).urgent
    desk.progress = progress(desk.now + 1, 2)
    assert not desk.look(1.0).urgent
    assert not desk.look(1.0).urgent
    desk.progress = progress(desk.now + 1, 2, generation=2)
    assert desk.look(1.0).urgent


def test_goodput_counts_from_the_first_ready_node_without_suspension() -> None:
    desk = Desk(make_job())
    desk.running()
    ready_at = desk.memory.first_ready_at
    assert ready_at == T0 + 1
    desk.progress = progress(ready_at + 40, 30, productive_seconds=30.0)
    plan = desk.look(40.0)
    assert plan.status.goodput.ratio == pytest.approx(0.75)
    desk.suspended = True
    desk.stop(desk.look())
    desk.look(1000.0)
    assert desk.plan is not None and desk.plan.status.goodput.ratio == pytest.approx(0.75)


def test_a_suspension_before_the_first_node_was_ready_is_no_time_of_its_own() -> None:
    desk = Desk(make_job())
    desk.look()
    desk.suspended = True
    desk.stop(desk.look(1.0))
    desk.look(1000.0)
    desk.suspended = False
    desk.running()
    ready_at = desk.now
    desk.progress = progress(ready_at + 40, 30, productive_seconds=30.0)
    plan = desk.look(40.0)
    assert plan.status.goodput.ratio == pytest.approx(0.75, abs=0.02)


def test_a_revived_job_keeps_its_goodput_though_it_was_suspended() -> None:
    desk = Desk(make_job(recovery={"crashes": {"limit": 0}}))
    desk.running()
    ready_at = desk.memory.first_ready_at
    assert ready_at is not None
    desk.progress = progress(ready_at + 100, 90, productive_seconds=90.0)
    desk.look(100.0)
    desk.suspended = True
    desk.stop(desk.look())
    desk.look(10_000.0)
    desk.suspended = False
    desk.start(desk.look())
    desk.end("worker-0-1", died(desk.now))
    failed = desk.look()
    assert failed.outcome is not None and failed.status.goodput.ratio == pytest.approx(0.9)
    desk.resume = "token"
    assert desk.look().status.goodput.ratio == pytest.approx(0.9)


def test_a_command_job_recovers_when_all_its_nodes_are_ready_again() -> None:
    desk = Desk(make_job(command=["train.py"], nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("worker-1-0", killed(desk.now))
    desk.look()
    desk.start(desk.look(2.0))
    over = recovered(desk.look(3.0).ledger)
    assert over.recovery_seconds == pytest.approx(5.0) and over.steps_redone is None


def test_a_failed_job_recovers_from_nothing_but_its_loss_is_counted() -> None:
    desk = Desk(make_job(nodes=2, recovery={"crashes": {"limit": 0}}))
    desk.running()
    desk.end("worker-0-0", End(desk.now - 30, signal=9))
    desk.end("worker-1-0", died(desk.now))
    plan = desk.look()
    assert plan.outcome is not None
    assert not [e for e in plan.ledger if e.kind == "recovered"]
    assert desk.memory.lost_seconds == pytest.approx({"node-lost": 30.0, "crash": 0.0})
