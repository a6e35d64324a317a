from __future__ import annotations

import pytest

from aurl_operator.api.status import JobPhase
from aurl_operator.core.observed import End
from aurl_trainer.contract import Cause, ExitCode, Termination
from tests.unit.operator.core.scene import Desk, died, killed, make_job, progress


def done(desk: Desk, *names: str) -> None:
    for name in names:
        desk.end(name, End(desk.now, exit_code=0))


def test_a_job_succeeds_when_all_its_nodes_have_ended_well() -> None:
    desk = Desk(make_job(nodes=2))
    desk.running()
    done(desk, "worker-0-0")
    plan = desk.look(1.0)
    assert plan.outcome is None and plan.status.phase is JobPhase.RUNNING
    assert not plan.starts, "nothing is started for a job that finishes"
    done(desk, "worker-1-0")
    plan = desk.look(1.0)
    assert plan.status.phase is JobPhase.SUCCEEDED
    assert plan.outcome is not None and plan.outcome.exit_code == ExitCode.OK
    assert [s.name for s in plan.stops] == ["store-0-0"]


def test_the_others_may_go_on_for_long_but_not_for_ever() -> None:
    desk = Desk(make_job(nodes=2, finishTimeoutSeconds=1800))
    desk.running()
    done(desk, "worker-0-0")
    assert not desk.look(1.0).stops
    assert not desk.look(1700.0).stops
    plan = desk.look(100.0)
    assert [s.name for s in plan.stops] == ["worker-1-0"]
    desk.stop(plan)
    assert desk.look(1.0).status.phase is JobPhase.SUCCEEDED


def test_a_node_lost_after_another_has_finished_means_a_new_round_for_all() -> None:
    desk = Desk(make_job(nodes=2))
    desk.running()
    done(desk, "worker-0-0")
    desk.look(1.0)
    desk.end("worker-1-0", killed(desk.now))
    assert desk.look().outcome is None
    plan = desk.look(2.0)
    assert [(s.name, s.rdzv_id) for s in plan.starts] == [("worker-0-1", "run-2"), ("worker-1-1", "run-2")]


def test_a_crash_in_the_same_moment_as_the_first_good_end_is_not_passed_over() -> None:
    desk = Desk(make_job(nodes=2))
    desk.running()
    desk.end("worker-1-0", died(desk.now - 0.5))
    done(desk, "worker-0-0")
    plan = desk.look()
    assert plan.outcome is None and plan.status.restarts == {"crash": 1}


def test_a_node_lost_well_before_the_end_does_not_matter() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("worker-1-0", killed(desk.now))
    desk.look()
    desk.now += 30
    done(desk, "worker-0-0")
    assert desk.look().status.phase is JobPhase.SUCCEEDED


def test_a_latecomer_that_never_joined_does_not_hold_success_up() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}, terminationGracePeriodSeconds=30))
    desk.running()
    desk.progress = progress(desk.now, 999, world=1)
    desk.look()
    done(desk, "worker-0-0")
    desk.look(1.0)
    desk.end("worker-1-0", died(desk.now, Cause.CRASH, "the rendezvous is closed"))
    assert desk.look(1.0).status.phase is JobPhase.SUCCEEDED, "every rank of the last world has ended well"


def test_an_incident_in_the_last_steps_is_over_when_the_job_succeeds() -> None:
    desk = Desk(make_job())
    desk.running()
    desk.end("worker-0-0", died(desk.now, step=1000))
    desk.look()
    plan = desk.look(6.0)
    desk.start(plan)
    desk.look(1.0)
    done(desk, "worker-0-1")
    plan = desk.look(1.0)
    (over,) = [e for e in plan.ledger if e.kind == "recovered"]
    assert over.lost_seconds is not None and over.lost_seconds > 5


def test_the_status_of_a_job_that_succeeded_names_what_is_durable_and_not_what_should_be() -> None:
    place = {"checkpoint": {"uri": "s3://bucket/bach"}}
    desk = Desk(make_job(**place))
    desk.running()
    desk.progress = progress(desk.now, 999, durable=900, last_durable_name="v9", world=1)
    desk.look(1.0)
    done(desk, "worker-0-0")
    plan = desk.look(1.0)
    kept = plan.status.checkpoint
    assert plan.status.phase is JobPhase.SUCCEEDED
    assert (kept.last_durable_step, kept.last_durable_name) == (900, "v9"), (
        "nobody has said that more is safe"
    )

    desk = Desk(make_job(**place))
    desk.running()
    desk.progress = progress(desk.now, 999, durable=900, last_durable_name="v9", world=1)
    desk.look(1.0)
    told = Termination(Cause.SUCCEEDED, "well", 0, desk.now, durable_step=1000, durable_name="v10")
    desk.end("worker-0-0", End(desk.now, exit_code=0, termination=told))
    kept = desk.look(1.0).status.checkpoint
    assert (kept.last_durable_step, kept.last_durable_name) == (1000, "v10"), "its ranks have said so"


@pytest.mark.parametrize(("heard", "kept"), [(-1.0, (163, "v7")), (1.0, (150, "v6"))])
def test_what_a_node_saved_when_it_left_counts_unless_later_word_came(
    heard: float, kept: tuple[int, str]
) -> None:
    desk = Desk(make_job())
    desk.running()
    desk.suspended = True
    desk.look(1.0)
    left = desk.now
    desk.progress = progress(left + heard, 162, durable=150, last_durable_name="v6", world=1)
    told = Termination(
        Cause.PREEMPTED, "left after a notice", ExitCode.PREEMPTED, left, durable_step=163, durable_name="v7"
    )
    desk.end("worker-0-0", End(left, exit_code=ExitCode.PREEMPTED, termination=told))
    status = desk.look(2.0).status
    assert (status.checkpoint.last_durable_step, status.checkpoint.last_durable_name) == kept
