from __future__ import annotations

import pytest

from aurl_operator.api.status import JobPhase
from aurl_operator.core.observed import End, Notice, Refusal, Role, State, Waiting, WaitingReason
from aurl_trainer.contract import Cause
from tests.unit.operator.core.scene import Desk, died, killed, kinds, make_job, progress, reasons


def test_one_node_needs_no_store() -> None:
    plan = Desk(make_job()).look()
    assert [s.name for s in plan.starts] == ["worker-0-0"]
    assert plan.starts[0].store is None


def test_the_store_comes_first_and_its_address_goes_into_each_node() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 3}))
    plan = desk.look()
    assert [s.name for s in plan.starts] == ["store-0-0"]
    desk.start(plan, ready=False)
    plan = desk.look(0.1)
    assert [s.name for s in plan.starts] == ["worker-0-0", "worker-1-0", "worker-2-0"]
    assert {(s.store, s.nodes_min, s.nodes_max, s.rdzv_id) for s in plan.starts} == {
        ("127.0.0.1:1", 1, 3, "run-1")
    }
    assert not desk.look(0.1).starts, "an ordered start must not be ordered again"


def test_a_first_node_that_is_ready_before_the_others_is_a_start_that_can_wait_to_be_told() -> None:
    desk = Desk(make_job(nodes=2))
    desk.start(desk.look())
    desk.start(desk.look(0.1), ready=False)
    desk.look(0.1)
    desk.change("worker-0-0", ready=True)
    plan = desk.look(0.1)
    assert plan.status.phase is JobPhase.STARTING, "expected no recovery where nothing was lost"
    assert plan.can_wait and not plan.ledger
    desk.change("worker-1-0", ready=True)
    plan = desk.look(0.1)
    assert plan.status.phase is JobPhase.RUNNING and not plan.can_wait


def test_a_node_lost_before_the_job_was_whole_is_recovered_from() -> None:
    desk = Desk(make_job(nodes=2))
    desk.start(desk.look())
    desk.start(desk.look(0.1), ready=False)
    desk.change("worker-0-0", ready=True)
    desk.look(0.1)
    desk.end("worker-1-0", killed(desk.now))
    assert desk.look(0.1).status.phase is JobPhase.RECOVERING


def test_a_job_that_resumes_starts() -> None:
    desk = Desk(make_job(nodes=2))
    desk.running()
    desk.suspended = True
    desk.stop(desk.look(1.0))
    assert desk.look(1.0).status.phase in (JobPhase.SUSPENDING, JobPhase.SUSPENDED)
    desk.stop(desk.look(1.0))
    desk.look(1.0)
    desk.suspended = False
    assert desk.look(1.0).status.phase in (JobPhase.PENDING, JobPhase.STARTING)


def test_training_goes_on_on_what_is_left_while_a_replacement_starts_in_the_same_round() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("worker-1-0", killed(desk.now))
    plan = desk.look()
    assert plan.status.phase is JobPhase.RUNNING and reasons(plan) == {
        "Ready": "Running",
        "Degraded": "NodesMissing",
    }
    plan = desk.look(1.0)
    (start,) = plan.starts
    assert (start.name, start.rdzv_id) == ("worker-1-1", "run-1")
    assert not plan.stops


def test_below_the_minimum_the_job_waits_for_a_replacement() -> None:
    desk = Desk(make_job(nodes=2))
    desk.running()
    desk.end("worker-1-0", killed(desk.now))
    plan = desk.look()
    assert plan.status.phase is JobPhase.RECOVERING and "Waiting" in reasons(plan)
    assert not plan.stops, "the other agent waits in the rendezvous"


def test_a_notice_starts_the_replacement_before_the_loss_at_another_index() -> None:
    desk = Desk(make_job(nodes=2))
    desk.running()
    desk.change("worker-0-0", notice=Notice(desk.now, "spot"))
    plan = desk.look()
    assert [s.name for s in plan.starts] == ["worker-2-0"], "two of one index must never live"
    desk.start(plan)
    assert not desk.look(1.0).starts
    desk.end("worker-0-0", died(desk.now, Cause.PREEMPTED))
    plan = desk.look(1.0)
    assert not plan.starts, "the loss was made good before it came"
    assert kinds(plan, "incident") == ["preempted"]


def test_a_single_node_under_notice_is_replaced_only_when_it_is_gone() -> None:
    desk = Desk(make_job())
    desk.running()
    desk.change("worker-0-0", notice=Notice(desk.now, "spot"))
    assert not desk.look().starts, "two agents without a store would be two worlds"


def test_a_notice_taken_back_leaves_one_too_many_and_it_goes() -> None:
    desk = Desk(make_job(nodes=2))
    desk.running()
    desk.change("worker-0-0", notice=Notice(desk.now, "spot"))
    desk.start(desk.look())
    desk.look(1.0)
    desk.change("worker-0-0", notice=None)
    assert [s.name for s in desk.look(1.0).stops] == ["worker-2-0"]


def test_a_lost_store_is_one_incident_and_brings_a_new_store_and_round() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("store-0-0", killed(desk.now))
    plan = desk.look()
    assert kinds(plan, "incident") == ["node-lost"]
    assert {s.name for s in plan.stops} == {"worker-0-0", "worker-1-0"}
    for name in ("worker-0-0", "worker-1-0"):
        desk.end(name, died(desk.now + 1, Cause.STORE_LOST))
    plan = desk.look(1.0)
    assert kinds(plan, "incident") == [] and desk.memory.restarts == {"node-lost": 1}
    assert [s.name for s in plan.starts] == ["store-0-1"]
    desk.start(plan)
    plan = desk.look(0.5)
    assert [(s.name, s.rdzv_id) for s in plan.starts] == [("worker-0-1", "run-2"), ("worker-1-1", "run-2")]


@pytest.mark.parametrize("drained", [False, True])
def test_a_store_under_notice_goes_last_and_all_save_before_it(drained: bool) -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    notice = Notice(desk.now, "spot", desk.now + 120)
    desk.change("store-0-0", notice=notice, stopping_since=desk.now if drained else None)
    desk.change("worker-0-0", notice=notice)
    plan = desk.look(1.0)
    assert {(s.name, s.kill) for s in plan.stops} == {("worker-0-0", False), ("worker-1-0", False)}
    assert [s.name for s in plan.starts] == ["store-0-1"], "expected another store before the loss"
    desk.start(plan)
    plan = desk.look(1.0)
    assert not plan.starts, "expected to wait until all have saved"
    assert "store-0-0" not in {s.name for s in plan.stops}, "nodes that save need it"
    desk.stop(plan)
    plan = desk.look(1.0)
    assert {(s.name, s.rdzv_id) for s in plan.starts} == {("worker-0-1", "run-2"), ("worker-1-1", "run-2")}
    assert [s.name for s in plan.stops] == ([] if drained else ["store-0-0"])
    desk.end("store-0-0", End(desk.now, exit_code=0, deleted=True, disrupted=True))
    desk.start(plan)
    plan = desk.look(1.0)
    assert not plan.stops and desk.memory.round == 2, "expected its end to harm the new round no more"
    assert desk.memory.restarts == {"preempted": 1}, "one loss, by what took the store's machine"


def test_a_store_whose_machine_goes_before_all_have_left_is_one_loss() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.change("store-0-0", notice=Notice(desk.now, "spot"))
    desk.start(desk.look(1.0))
    desk.look(1.0)
    desk.end("store-0-0", killed(desk.now))
    desk.look(1.0)
    for name in ("worker-0-0", "worker-1-0"):
        desk.end(name, died(desk.now, Cause.STORE_LOST))
    plan = desk.look(1.0)
    assert {s.rdzv_id for s in plan.starts} == {"run-2"} and not plan.stops
    assert desk.memory.restarts == {"preempted": 1}


def test_a_store_whose_notice_is_taken_back_is_one_too_many_when_nobody_saves_there_any_more() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.change("store-0-0", notice=Notice(desk.now, "spot"))
    plan = desk.look(1.0)
    desk.start(plan)
    desk.change("store-0-0", notice=None)
    assert "store-0-0" not in {s.name for s in desk.look(1.0).stops}
    desk.stop(plan)
    plan = desk.look(1.0)
    assert [s.name for s in plan.stops] == ["store-0-0"]
    assert {s.store for s in plan.starts} == {"127.0.0.1:1"} and len(plan.starts) == 2


def test_a_store_under_notice_that_nobody_has_used_yet_is_replaced_in_the_same_round() -> None:
    desk = Desk(make_job(nodes=2))
    desk.start(desk.look(), ready=False)
    desk.change("store-0-0", notice=Notice(desk.now, "spot"))
    plan = desk.look(0.5)
    assert [s.name for s in plan.stops] == ["store-0-0"] and [s.name for s in plan.starts] == ["store-0-1"]
    desk.start(plan)
    desk.end("store-0-0", End(desk.now, exit_code=0, deleted=True, disrupted=True))
    desk.look(0.5)
    assert {s.rdzv_id for s in desk.look(10.0).starts} == {"run-1"}


def test_agents_that_report_the_store_lost_get_a_new_one_though_it_still_runs() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("worker-0-0", died(desk.now, Cause.STORE_LOST))
    plan = desk.look()
    assert {s.name for s in plan.stops} == {"store-0-0", "worker-1-0"}
    assert desk.memory.restarts == {"store-lost": 1}


def test_a_store_that_crashes_again_and_again_ends_the_job() -> None:
    desk = Desk(make_job(nodes=2, recovery={"crashes": {"limit": 2, "backoff": {"initialSeconds": 0}}}))
    plan = desk.look()
    for attempt in range(3):
        desk.start(plan)
        desk.end(f"store-0-{attempt}", died(desk.now))
        plan = desk.look(1.0)
    assert plan.outcome is not None and plan.outcome.reason == "BudgetExhausted"
    assert plan.status.restarts == {"store-lost": 3}


def test_a_changed_range_means_all_save_and_a_new_round() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.job = make_job(nodes={"min": 1, "max": 3})
    plan = desk.look()
    assert {(s.name, s.kill) for s in plan.stops} == {("worker-0-0", False), ("worker-1-0", False)}
    assert not plan.starts, "two worlds at once are never wanted"
    desk.stop(plan)
    plan = desk.look(1.0)
    assert [(s.name, s.nodes_max, s.rdzv_id) for s in plan.starts] == [
        ("worker-0-1", 3, "run-2"),
        ("worker-1-1", 3, "run-2"),
        ("worker-2-0", 3, "run-2"),
    ]
    assert desk.memory.incidents == (), "a change of mind is no loss"


def test_shrinking_to_one_node_gives_the_store_back() -> None:
    desk = Desk(make_job(nodes=2))
    desk.running()
    desk.job = make_job(nodes=1)
    desk.stop(desk.look())
    plan = desk.look(1.0)
    assert [s.name for s in plan.stops] == ["store-0-0"]
    assert [s.name for s in plan.starts] == ["worker-0-1"]


def test_a_start_that_was_never_seen_gives_its_number_up() -> None:
    desk = Desk(make_job())
    assert [s.name for s in desk.look().starts] == ["worker-0-0"]
    assert not desk.look(1.0).starts, "it may just not be seen yet"
    plan = desk.look(10.0)
    assert [s.name for s in plan.starts] == ["worker-0-1"], "a number is never used twice"


def test_a_refused_start_is_tried_again_under_its_own_number_and_named() -> None:
    desk = Desk(make_job())
    desk.look()
    waiting = Waiting(WaitingReason.QUOTA, "exceeded quota")
    desk.refusals = (Refusal(Role.NODE, 0, 0, waiting, desk.now),)
    plan = desk.look(1.0)
    assert not plan.starts and reasons(plan)["Waiting"] == "Quota"
    assert plan.wake_after is not None
    plan = desk.look(plan.wake_after)
    assert [s.name for s in plan.starts] == ["worker-0-0"]


def test_agents_of_an_old_round_whose_start_is_still_under_way_hold_the_new_round_back() -> None:
    desk = Desk(make_job(nodes=2))
    desk.start(desk.look())
    plan = desk.look(0.1)
    late = plan.starts[1]
    desk.put(plan.starts[0])
    desk.job = make_job(nodes=3)
    plan = desk.look(0.1)
    desk.stop(plan)
    assert not desk.look(0.1).starts, "worker-1-0 of the old round may still come up"
    desk.put(late, state=State.WAITING, ready=False, waiting=Waiting(WaitingReason.STARTING))
    assert [s.name for s in desk.look(0.1).stops] == ["worker-1-0"]


def test_a_new_index_of_a_job_that_has_trained_is_told_so() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    assert not any(start.trained for start in desk.look().starts)
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.progress = progress(desk.now, 40)
    desk.look()
    desk.change("worker-1-0", notice=Notice(at=desk.now))
    starts = desk.look(1.0).starts
    assert [(s.index, s.attempt, s.trained) for s in starts] == [(2, 0, True)], f"found {starts}"
