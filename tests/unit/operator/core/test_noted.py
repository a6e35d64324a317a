"""What ranks notice is one incident each: told once, charged to nobody, and nothing is restarted for it."""

from __future__ import annotations

import pytest

from aurl_operator.core.accounts.causes import conclude
from aurl_operator.core.accounts.noted import DAMAGED, REMEMBERED
from aurl_operator.core.observed import End, Role
from aurl_trainer.contract import NOTICED, NOTICES, Cause, Noted, Termination
from tests.unit.operator.core.scene import Desk, killed, make_job, progress


def noted(number: int, cause: Cause = Cause.SAVE_FAILED, at: float = 5.0) -> Noted:
    return Noted(
        f"{cause.value}/{number}", cause, at, f"notice {number}", step=number, checkpoint=f"v{number}"
    )


def test_a_notice_is_one_incident_and_costs_nothing() -> None:
    desk = Desk(make_job(nodes=2, recovery={"crashes": {"limit": 0}}))
    desk.running()
    told = [noted(1, cause, desk.now) for cause in NOTICED]
    desk.progress = progress(desk.now + 1, 5, noted=told)
    plan = desk.look(1.0)
    found = [e for e in plan.ledger if e.kind == "incident"]
    assert {(e.cause, e.step, e.message) for e in found} == {(c.value, 1, "notice 1") for c in NOTICED}
    assert plan.urgent, "it must be in the status before anybody is told"
    assert not plan.actions, "nothing is restarted for it"
    assert plan.outcome is None
    assert desk.memory.tallies == {}, "no budget is charged"
    assert desk.memory.restarts == {c.value: 1 for c in NOTICED}
    assert plan.status.checkpoint.damaged == ["v1"], "only damage names its checkpoint"
    assert all(i.lost_seconds is None and i.nodes == [] for i in plan.status.incidents)
    desk.progress = progress(desk.now + 1, 6, noted=told)
    again = desk.look(1.0)
    assert again.ledger == (), "told again, booked once"
    assert not again.urgent


def test_whatever_is_told_again_is_still_known_after_a_hundred_others() -> None:
    desk = Desk(make_job())
    desk.running()
    every = [noted(n, Cause.CHECKPOINT_DAMAGED, desk.now + n) for n in range(100)]
    booked = 0
    for last in range(1, 101):
        desk.progress = progress(desk.now + 1, last, generation=last, noted=every[:last])
        assert len(desk.progress.noted) <= NOTICES
        booked += sum(e.kind == "incident" for e in desk.look(1.0).ledger)
    assert booked == 100
    assert len(desk.memory.noted) == REMEMBERED
    assert desk.plan is not None
    assert desk.plan.status.checkpoint.damaged == [f"v{n}" for n in range(100 - DAMAGED, 100)]


def test_a_loss_after_a_notice_is_an_incident_of_its_own() -> None:
    desk = Desk(make_job(nodes={"min": 1, "max": 2}))
    desk.running()
    desk.progress = progress(desk.now, 5, noted=[noted(1, at=desk.now)])
    desk.look()
    desk.end("worker-1-0", killed(desk.now + 1))
    plan = desk.look(1.0)
    assert [e.cause for e in plan.ledger if e.kind == "incident"] == ["node-lost"]
    assert desk.memory.restarts == {"save-failed": 1, "node-lost": 1}


def test_the_status_names_the_checkpoint_that_a_restart_would_go_on_from() -> None:
    desk = Desk(make_job())
    desk.running()
    desk.progress = progress(desk.now + 1, 41, durable=40, last_durable_name="v4")
    plan = desk.look(1.0)
    assert (plan.status.checkpoint.last_durable_step, plan.status.checkpoint.last_durable_name) == (40, "v4")
    damage = noted(4, Cause.CHECKPOINT_DAMAGED, desk.now)
    fallen = {"resumed_from": 30, "last_durable_name": "v3", "noted": [damage]}
    desk.progress = progress(desk.now + 1, 31, generation=2, durable=30, **fallen)
    kept = desk.look(1.0).status.checkpoint
    assert (kept.last_durable_step, kept.last_durable_name, kept.damaged) == (30, "v3", ["v4"])
    assert desk.memory.durable_step == 40, "what refills budgets never goes back"


@pytest.mark.parametrize("cause", sorted(NOTICED))
def test_no_node_ends_of_what_ends_none(cause: Cause) -> None:
    """A termination record that claims so does not get round the budget of crashes."""
    end = End(1.0, exit_code=1, termination=Termination(cause, "boom", 1, 1.0))
    assert conclude(end, Role.NODE, (), stopped=False, noticed=False).cause is Cause.CRASH
