from __future__ import annotations

from typing import Any

import pytest

from aurl_operator.api.status import JobPhase
from aurl_operator.core.observed import End, State
from aurl_operator.core.policies import recovery
from aurl_trainer.contract import Cause, ExitCode
from tests.unit.operator.core.scene import Desk, died, killed, kinds, make_job, progress, reasons


def again(desk: Desk, name: str, end: End) -> None:
    """Lets a node end, waits out the backoff, and starts its replacement."""
    desk.end(name, end)
    plan = desk.look()
    while plan.outcome is None and not plan.starts:
        assert plan.wake_after is not None, "a backoff must say when to look again"
        plan = desk.look(plan.wake_after)
    desk.start(plan)
    desk.look(1.0)


def test_a_crash_loop_fails_after_exactly_its_budget() -> None:
    desk = Desk(make_job(recovery={"crashes": {"limit": 3}}))
    desk.running()
    for attempt in range(3):
        again(desk, f"worker-0-{attempt}", died(desk.now))
        assert desk.memory.outcome is None, f"restart {attempt + 1} of 3 is allowed"
    desk.end("worker-0-3", died(desk.now))
    plan = desk.look()
    assert plan.outcome is not None and plan.outcome.reason == "BudgetExhausted"
    assert "4th time" in plan.outcome.message and "boom" in plan.outcome.message
    assert plan.outcome.exit_code == ExitCode.RUN_FAILED
    assert plan.status.restarts == {"crash": 4}


def test_twenty_preemptions_do_not_fail_a_job_and_never_count_as_crashes() -> None:
    desk = Desk(make_job())
    desk.running()
    for attempt in range(20):
        again(desk, f"worker-0-{attempt}", died(desk.now, Cause.PREEMPTED))
    assert desk.memory.outcome is None
    assert desk.memory.restarts == {"preempted": 20}
    assert "crashes" not in desk.memory.tallies


def test_a_new_durable_step_refills_the_budget_and_an_old_one_does_not() -> None:
    desk = Desk(make_job(recovery={"crashes": {"limit": 1}}))
    desk.running()
    desk.progress = progress(desk.now, 10, durable=10)
    desk.look()
    again(desk, "worker-0-0", died(desk.now))
    desk.progress = progress(desk.now, 12, generation=2, durable=10, resumed_from=10)
    desk.look()
    assert desk.memory.tallies["crashes"].streak == 1, "resuming from a checkpoint is no progress"
    desk.progress = progress(desk.now + 1, 20, generation=2, durable=20, resumed_from=10)
    desk.look(2.0)
    again(desk, "worker-0-1", died(desk.now))
    assert desk.memory.outcome is None, "a crash after new progress starts a new count"
    desk.end("worker-0-2", died(desk.now))
    assert desk.look().outcome is not None


def test_a_budget_that_is_never_refilled_counts_over_the_whole_run() -> None:
    desk = Desk(make_job(recovery={"crashes": {"limit": 1, "refill": "Never"}}))
    desk.running()
    again(desk, "worker-0-0", died(desk.now))
    desk.progress = progress(desk.now, 20, durable=20)
    desk.look()
    desk.end("worker-0-1", died(desk.now))
    plan = desk.look()
    assert plan.outcome is not None and plan.outcome.reason == "BudgetExhausted"


@pytest.mark.parametrize(
    ("cause", "name"),
    [(Cause.CRASH, "crashes"), (Cause.HANG, "hang"), (Cause.OUT_OF_MEMORY, "out_of_memory")],
)
def test_each_cause_has_its_own_budget(cause: Cause, name: str) -> None:
    desk = Desk(make_job())
    desk.running()
    again(desk, "worker-0-0", died(desk.now, cause))
    assert {k: t.total for k, t in desk.memory.tallies.items()} == {name: 1}


def test_backoff_doubles_and_is_jittered_by_the_uid_only() -> None:
    desk = Desk(
        make_job(recovery={"crashes": {"limit": 9, "backoff": {"initialSeconds": 10, "maxSeconds": 30}}})
    )
    desk.running()
    waits = []
    for attempt in range(4):
        desk.end(f"worker-0-{attempt}", died(desk.now))
        plan = desk.look()
        assert not plan.starts and plan.wake_after is not None
        waits.append(plan.wake_after)
        assert desk.look().wake_after == plan.wake_after, "looking again must not change the wait"
        plan = desk.look(plan.wake_after)
        desk.start(plan)
        desk.look(1.0)
    for wait, full in zip(waits, (10, 20, 30, 30), strict=True):
        assert 0.8 * full <= wait <= full, f"waited {wait} s where at most {full} s were due"


def test_backoff_is_a_named_reason_for_waiting() -> None:
    desk = Desk(make_job())
    desk.running()
    desk.end("worker-0-0", died(desk.now))
    plan = desk.look()
    assert plan.status.phase is JobPhase.RECOVERING
    assert reasons(plan) == {"Waiting": "Backoff"}


def test_a_final_error_fails_the_job_at_once_with_its_message() -> None:
    desk = Desk(make_job(nodes=2))
    desk.running()
    desk.end("worker-1-0", died(desk.now, Cause.FINAL_ERROR, "model.dim does not fit"))
    plan = desk.look()
    assert plan.outcome is not None and "model.dim does not fit" in plan.outcome.message
    assert [s.name for s in plan.stops] == ["worker-0-0"], "the other node is given notice, the store stays"


def test_a_final_error_of_a_known_kind_gives_its_exit_code() -> None:
    desk = Desk(make_job())
    desk.running()
    end = died(desk.now, Cause.FINAL_ERROR, "no MIDI files in music/")
    assert end.termination is not None
    object.__setattr__(end.termination, "exit_code", int(ExitCode.DATA))
    desk.end("worker-0-0", end)
    plan = desk.look()
    assert plan.outcome is not None and plan.outcome.exit_code == ExitCode.DATA


def test_several_nodes_lost_together_are_one_incident() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 3}))
    desk.running()
    desk.end("worker-1-0", killed(desk.now))
    first = desk.look()
    desk.end("worker-2-0", killed(desk.now + 4))
    second = desk.look(5.0)
    assert kinds(first, "incident") == ["node-lost"] and kinds(second, "incident") == []
    (incident,) = desk.memory.incidents
    assert incident.nodes == ("worker-1-0", "worker-2-0")
    assert desk.memory.tallies["node_lost"].total == 1


REJECTED = "UnexpectedAdmissionError: Pod was rejected: Allocate failed"


def refused(desk: Desk, attempt: int, end: dict[str, Any]) -> float:
    """Waits for a replacement, and lets it end before it has run. Returns how long it was waited for."""
    plan, began = desk.look(), desk.now
    while not plan.starts:
        assert plan.wake_after is not None, "a backoff must say when to look again"
        plan = desk.look(plan.wake_after)
    waited = desk.now - began
    assert [start.name for start in plan.starts] == [f"worker-1-{attempt}"]
    desk.start(plan, state=State.WAITING, ready=False)
    desk.look(0.1)
    desk.end(f"worker-1-{attempt}", End(desk.now, **end))
    return waited


def test_replacements_that_the_kubelet_rejects_are_charged_and_back_off_while_the_others_train() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("worker-1-0", died(desk.now, Cause.PREEMPTED, "drained"))
    waits = [refused(desk, attempt, {"message": REJECTED}) for attempt in range(1, 7)]
    plan = desk.look()
    assert desk.memory.restarts == {"preempted": 1}, "they were all to mend one loss"
    assert desk.memory.tallies["node_lost"].total == 6
    for wait, full in zip(waits[1:], (1, 2, 4, 8, 16), strict=True):
        assert 0.8 * full <= wait <= full, f"waited {waits} s"
    (incident,) = desk.memory.incidents
    assert incident.message == f"drained; worker-1-1: {REJECTED}"
    (words,) = [c.message for c in plan.status.conditions if c.type == "Degraded"]
    assert "Backoff" in words and REJECTED in words, f"found {words}"


def test_replacements_that_the_kubelet_rejects_use_their_budget_up() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}, recovery={"nodeLost": {"limit": 2}}))
    desk.running()
    desk.end("worker-1-0", died(desk.now, Cause.PREEMPTED, "drained"))
    for attempt in range(1, 4):
        assert desk.look().outcome is None
        refused(desk, attempt, {"message": REJECTED})
    plan = desk.look()
    assert plan.outcome is not None and plan.outcome.reason == "BudgetExhausted"
    assert f"worker-1-3: {REJECTED}" in plan.outcome.message, plan.outcome.message


def test_a_replacement_on_a_machine_that_was_lost_already_costs_nothing() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("worker-1-0", End(desk.now, node_lost=True))
    refused(desk, 1, {"node_lost": True})
    desk.look()
    assert desk.memory.restarts == {"node-lost": 1}
    assert desk.memory.tallies["node_lost"].total == 1


def test_nodes_lost_apart_are_two_incidents() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 3}))
    desk.running()
    desk.end("worker-1-0", killed(desk.now))
    desk.look()
    desk.end("worker-2-0", killed(desk.now + recovery.WINDOW + 1))
    desk.look(recovery.WINDOW + 1)
    assert len(desk.memory.incidents) == 2


def test_a_crash_right_after_the_loss_of_a_machine_belongs_to_the_loss() -> None:
    desk = Desk(make_job(nodes=2))
    desk.running()
    desk.end("worker-1-0", End(desk.now - 1, exit_code=137, disrupted=True))
    desk.end("worker-0-0", died(desk.now))
    desk.look()
    assert desk.memory.restarts == {"preempted": 1}
    assert "crashes" not in desk.memory.tallies


def test_a_preemption_right_after_a_crash_is_an_incident_of_its_own() -> None:
    desk = Desk(make_job(nodes=2))
    desk.running()
    desk.end("worker-1-0", died(desk.now - 1))
    desk.end("worker-0-0", End(desk.now, exit_code=137, disrupted=True))
    desk.look()
    assert desk.memory.restarts == {"crash": 1, "preempted": 1}


def test_a_replacement_that_crashes_at_once_is_charged_again() -> None:
    desk = Desk(make_job(recovery={"crashes": {"limit": 5, "backoff": {"initialSeconds": 0}}}))
    desk.running()
    for attempt in range(3):
        desk.end(f"worker-0-{attempt}", died(desk.now))
        desk.start(desk.look(0.5))
        desk.look(0.5)
    assert desk.memory.tallies["crashes"].total == 3, "a quick loop must not hide in one incident"


def test_every_end_is_booked_once_however_often_it_is_seen() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("worker-1-0", killed(desk.now))
    plans = [desk.look(), *(desk.look(300.0) for _ in range(6))]
    ends = [e.id for plan in plans for e in plan.ledger if e.kind == "node" and e.cause]
    assert ends == ["worker-1-0-uid/end"], "seen for half an hour, booked once"


def test_a_vanished_node_is_booked_as_deleted_and_never_as_a_crash() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    del desk.processes["worker-1-0-uid"]
    plan = desk.look()
    assert kinds(plan, "incident") == ["deleted"]
    assert desk.memory.tallies["preemptions"].total == 1


def test_what_we_stopped_is_no_incident_even_if_it_vanishes_or_is_killed() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.suspended = True
    assert {s.name for s in desk.look().stops} == {"worker-0-0", "worker-1-0"}
    del desk.processes["worker-0-0-uid"]
    desk.end("worker-1-0", killed(desk.now))
    desk.look(1.0)
    assert desk.memory.incidents == ()


def test_a_node_booked_as_gone_that_comes_back_is_killed() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    gone = desk.processes.pop("worker-1-0-uid")
    desk.look()
    desk.processes[gone.uid] = gone
    plan = desk.look(1.0)
    assert [(s.name, s.kill) for s in plan.stops] == [("worker-1-0", True)]


def test_rules_by_exit_code_decide_what_a_crash_is() -> None:
    desk = Desk(
        make_job(
            command=["t.py"],
            recovery={"rules": [{"exitCodes": [3], "cause": "FinalError", "message": "bad data"}]},
        )
    )
    desk.running()
    desk.end("worker-0-0", End(desk.now, exit_code=3))
    plan = desk.look()
    assert plan.outcome is not None and "bad data" in plan.outcome.message


def test_an_incident_of_a_large_world_names_some_and_counts_the_rest() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 64}))
    desk.running()
    lost = sorted(p.name for p in desk.processes.values() if p.name.startswith("worker"))
    for name in lost:
        desk.end(name, killed(desk.now))
    plan = desk.look(1.0)
    (incident,) = plan.status.incidents
    assert (incident.nodes, incident.unnamed) == (lost[: recovery.NAMED], 64 - recovery.NAMED)
    assert plan.status.restarts == {"node-lost": 1}
    (barred,) = {start.barred for start in desk.look(60.0).starts}
    assert barred == tuple(f"{name}-uid" for name in lost[-recovery.NAMED :]), "expected the newest barred"


def test_incidents_do_not_grow_without_end() -> None:
    desk = Desk(make_job())
    desk.running()
    for attempt in range(recovery.KEPT + recovery.KEPT_OPEN + 5):
        again(desk, f"worker-0-{attempt}", died(desk.now, Cause.PREEMPTED))
    assert len(desk.memory.incidents) == recovery.KEPT + recovery.KEPT_OPEN
    assert desk.plan is not None and len(desk.plan.status.incidents) == 20
    assert len(desk.memory.to_json()) < 100_000, "the memory must fit into an object's status"
