"""What is given back when a job ends or is deleted: pods, the object, checkpoints."""

from __future__ import annotations

import pytest

from aurl_operator.api.status import JobPhase
from aurl_operator.backends.kubernetes.act.events import told
from aurl_operator.core.observed import LOCAL, End
from aurl_operator.core.plan import DeleteJob, Release, Remove
from aurl_operator.core.policies import cleanup
from aurl_trainer.contract import Cause, ExitCode, Termination
from tests.unit.operator.core.scene import Desk, died, make_job


@pytest.mark.parametrize(("pods", "stops", "removes"), [("None", 0, 0), ("Running", 1, 0), ("All", 1, 1)])
def test_cleanup_of_pods(pods: str, stops: int, removes: int) -> None:
    desk = Desk(make_job(nodes=2, cleanup={"pods": pods}))
    desk.running()
    desk.end("worker-1-0", died(desk.now, Cause.FINAL_ERROR))
    plan = desk.look()
    assert len(plan.stops) == stops
    assert [a.name for a in plan.actions if isinstance(a, Remove)] == ["worker-1-0"] * removes


def test_a_local_run_leaves_no_process_whatever_the_policy() -> None:
    desk = Desk(make_job(nodes=2, cleanup={"pods": "None"}), LOCAL)
    desk.running()
    desk.end("worker-1-0", died(desk.now, Cause.FINAL_ERROR))
    assert [s.name for s in desk.look().stops] == ["worker-0-0"]


def test_old_remains_are_removed_while_a_job_runs() -> None:
    desk = Desk(make_job(recovery={"preemptions": {"backoff": {"initialSeconds": 0}}}))
    desk.running()
    for attempt in range(cleanup.REMAINS + 2):
        desk.end(f"worker-0-{attempt}", died(desk.now, Cause.PREEMPTED))
        desk.start(desk.look(1.0))
    plan = desk.look(1.0)
    assert [a.name for a in plan.actions if isinstance(a, Remove)] == ["worker-0-0", "worker-0-1"]


def test_a_node_that_ended_gives_its_machine_back_whatever_runs_beside_it() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("worker-1-0", died(desk.now, Cause.PREEMPTED))
    desk.change("worker-1-0", lingers=True)
    for _ in range(2):
        plan = desk.look(1.0)
        assert [(a.name, a.grace_seconds) for a in plan.actions if isinstance(a, Remove)] == [
            ("worker-1-0", cleanup.LINGER_SECONDS)
        ]
    desk.change("worker-1-0", stopping_since=desk.now)
    assert not [a for a in desk.look(1.0).actions if isinstance(a, Remove)], "expected it to be told once"


@pytest.mark.parametrize("evicted", [False, True])
def test_the_pod_of_a_lost_machine_is_removed_by_force(evicted: bool) -> None:
    """Its object would count against the quota for as long as the machine is away."""
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("worker-1-0", End(desk.now, node_lost=True))
    desk.change("worker-1-0", stopping_since=desk.now if evicted else None)
    plan = desk.look(1.0)
    assert [a for a in plan.actions if isinstance(a, Remove)] == [Remove("worker-1-0-uid", "worker-1-0")]
    assert plan.status.restarts == {"node-lost": 1}
    del desk.processes["worker-1-0-uid"]
    start = (*plan.starts, *desk.look(30.0).starts)[0]
    assert start.barred == ("worker-1-0-uid",), "expected it to be barred: its machine may come back"
    assert desk.memory.restarts == {"node-lost": 1}, "expected its removal to be no other loss"


@pytest.mark.parametrize(("pods", "removes"), [("None", 0), ("Running", 1), ("All", 1)])
def test_cleanup_of_a_pod_that_runs_on_after_the_end(pods: str, removes: int) -> None:
    desk = Desk(make_job(cleanup={"pods": pods}))
    desk.running()
    desk.end("worker-0-0", End(desk.now, exit_code=0))
    desk.change("worker-0-0", lingers=True)
    plan = desk.look()
    assert plan.outcome is not None
    assert len([a for a in plan.actions if isinstance(a, Remove)]) == removes


def test_time_to_live_deletes_the_job_after_its_end() -> None:
    desk = Desk(make_job(cleanup={"ttlSecondsAfterFinished": 50}))
    desk.running()
    desk.end("worker-0-0", End(desk.now, exit_code=0))
    plan = desk.look()
    assert plan.wake_after == pytest.approx(50.0)
    assert DeleteJob() in desk.look(50.0).actions


def test_a_deleted_job_lets_go_when_its_processes_are_gone() -> None:
    desk = Desk(make_job())
    desk.running()
    desk.deleting = True
    plan = desk.look()
    assert plan.status.phase is JobPhase.DELETING and not any(isinstance(a, Release) for a in plan.actions)
    desk.stop(plan)
    assert desk.look(1.0).actions == (Release(),)


def test_checkpoints_are_deleted_by_a_cleaner_in_bounded_tries() -> None:
    desk = Desk(make_job(cleanup={"checkpoints": "KeepBest"}))
    desk.running()
    desk.deleting = True
    desk.stop(desk.look())
    for attempt in range(cleanup.TRIES):
        plan = desk.look(1.0)
        (start,) = plan.starts
        assert (start.name, start.keep_best) == (f"cleaner-0-{attempt}", True)
        desk.put(start)
        desk.look(1.0)
        desk.end(start.name, died(desk.now))
    plan = desk.look(1.0)
    (release,) = plan.actions
    assert isinstance(release, Release) and "3 cleaners failed: boom" in release.message
    assert [(e.kind, e.message) for e in plan.ledger if told(e)] == [("cleanup", release.message)]
    again = desk.look(1.0)
    assert not again.starts and not again.ledger, "expected it to be told once"
    assert any(isinstance(a, Release) for a in again.actions)
    assert "crash" not in desk.memory.restarts


def test_what_a_cleaner_may_not_delete_stays_at_once_and_is_told() -> None:
    desk = Desk(make_job(cleanup={"checkpoints": "Delete"}))
    desk.running()
    desk.deleting = True
    desk.stop(desk.look())
    desk.start(desk.look(1.0))
    desk.look(1.0)
    words = "s3://b/run belongs to run a, not to b: nothing is deleted"
    record = Termination(Cause.FINAL_ERROR, words, ExitCode.REFUSED, desk.now)
    desk.end("cleaner-0-0", End(desk.now, exit_code=ExitCode.REFUSED, termination=record))
    plan = desk.look(1.0)
    assert plan.actions == (Release(f"checkpoints stay: {words}"),), "expected no other try"
    (entry,) = [e for e in plan.ledger if told(e)]
    assert (entry.kind, entry.message) == ("cleanup", f"checkpoints stay: {words}")
    for _ in range(2):
        plan = desk.look(1.0)
        assert not plan.starts and not plan.ledger, "expected it to be told once, and no other try"
        assert any(isinstance(a, Release) for a in plan.actions), "others held the job at the first time"


def test_a_cleaner_that_succeeds_lets_the_job_go_and_is_not_started_again() -> None:
    desk = Desk(make_job(cleanup={"checkpoints": "Delete"}))
    desk.running()
    desk.deleting = True
    desk.stop(desk.look())
    desk.start(desk.look(1.0))
    desk.look(1.0)
    desk.end("cleaner-0-0", End(desk.now, exit_code=0))
    for _ in range(2):
        assert desk.look(1.0).actions == (Release("checkpoints deleted"),)
