"""What is remembered of processes that have ended, and for how long."""

from __future__ import annotations

from aurl_operator.core.accounts.booking import BOOKED_SECONDS
from aurl_operator.core.observed import End, State
from aurl_trainer.contract import Cause
from tests.unit.operator.core.scene import Desk, died, make_job


def test_a_finished_job_whose_pods_stay_is_written_no_more() -> None:
    desk = Desk(make_job())
    desk.running()
    desk.end("worker-0-0", End(desk.now, exit_code=0))
    desk.look()
    memory = desk.memory
    for _ in range(5):
        plan = desk.look(BOOKED_SECONDS)
        assert not plan.urgent, "expected nothing to be written for a job to which nothing happens"
        assert plan.memory.booked == memory.booked
    assert desk.memory.restarts == {} and not plan.ledger, "expected the end not to be booked again"


def test_an_end_is_forgotten_when_nothing_can_be_seen_of_it_any_more() -> None:
    desk = Desk(make_job())
    desk.running()
    desk.end("worker-0-0", died(desk.now, Cause.PREEMPTED))
    desk.start(desk.look(1.0))
    desk.look(2 * BOOKED_SECONDS)
    del desk.processes["worker-0-0-uid"]
    desk.look(1.0)
    assert "worker-0-0-uid" not in desk.memory.booked


def test_a_lost_node_that_came_back_and_was_stopped_leaves_nothing_behind() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.end("worker-1-0", End(desk.now, node_lost=True))
    desk.start(desk.look(1.0))
    desk.change("worker-1-0", state=State.RUNNING, end=None)
    assert [(s.name, s.kill) for s in desk.look(30.0).stops] == [("worker-1-0", True)]
    assert [s.name for s in desk.look(1.0).stops] == ["worker-1-0"], "expected it until its end is seen"
    del desk.processes["worker-1-0-uid"]
    desk.look(1.0)
    assert desk.memory.stopping == {}, "expected an entry for each healed machine not to stay for ever"
