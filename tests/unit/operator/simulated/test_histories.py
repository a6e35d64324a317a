from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from aurl_operator.api.status import JobPhase
from aurl_operator.backends.simulated.history import Event, Kind, play, recorded, settled
from aurl_operator.backends.simulated.operator import Operator
from aurl_operator.backends.simulated.world import Pace
from aurl_operator.core.observed import CLUSTER, LOCAL, Capabilities
from tests.unit.operator.core.scene import T0, make_job
from tests.unit.operator.simulated import laws

ELASTIC: dict[str, Any] = {"nodes": {"min": 1, "max": 3}}


def run(*events: Event, capabilities: Capabilities = CLUSTER, **spec: Any) -> Operator:
    operator = play(make_job(**spec), events, capabilities=capabilities)
    laws.always(operator)
    return operator


def ended(operator: Operator) -> JobPhase:
    assert operator.memory.outcome is not None, "the job must have ended"
    laws.at_the_end(operator, {e.uids[0] for e in operator.ledger if e.kind == "node"})
    return operator.memory.outcome.phase


@pytest.mark.parametrize("nodes", [1, 2, {"min": 1, "max": 3}])
def test_an_undisturbed_job_succeeds_without_a_single_incident(nodes: Any) -> None:
    operator = run(nodes=nodes)
    assert ended(operator) is JobPhase.SUCCEEDED
    assert operator.memory.restarts == {}


def test_a_kill_and_a_preemption_on_the_way() -> None:
    operator = run(Event(30, "kill", 1), Event(50, "preempt", 0), **ELASTIC)
    assert ended(operator) is JobPhase.SUCCEEDED
    assert operator.memory.restarts == {"node-lost": 1, "preempted": 1}
    recovered = [e for e in operator.ledger if e.kind == "recovered"]
    assert [e.cause for e in recovered] == ["node-lost", "preempted"]
    assert recovered[1].steps_redone == 0, "those under notice save first"


@pytest.mark.parametrize("left", range(6))
def test_what_ranks_notice_is_booked_once_whenever_the_operator_dies(left: int) -> None:
    notices = [Event(30, "damage"), Event(31, "save-fails"), Event(32, "differs")]
    dies = [Event(at, "operator-dies", value=left) for at in (29.5, 31.5)]
    operator = run(*notices, *dies, Event(40, "kill", 1), **ELASTIC)
    assert ended(operator) is JobPhase.SUCCEEDED
    causes = [e.cause for e in operator.ledger if e.kind == "incident"]
    assert causes == ["checkpoint-damaged", "save-failed", "resume-mismatch", "node-lost"]
    assert operator.memory.restarts == dict.fromkeys(causes, 1)
    assert [i.cause for i in operator.memory.incidents if i.lost_seconds is not None] == ["node-lost"]


def test_a_spot_notice_is_answered_before_the_loss() -> None:
    operator = run(Event(30, "notice", 0, 20.0), nodes=2)
    assert ended(operator) is JobPhase.SUCCEEDED
    assert operator.memory.restarts == {"preempted": 1}
    assert "worker-2-0" in operator.world.started


def test_twenty_preemptions_do_not_end_a_job() -> None:
    operator = run(*(Event(15 + 12 * i, "preempt", 0) for i in range(20)))
    assert ended(operator) is JobPhase.SUCCEEDED
    assert set(operator.memory.restarts) == {"preempted"}


def test_a_crash_at_every_start_ends_the_job_after_exactly_its_budget() -> None:
    operator = run(*(Event(10 + 0.5 * i, "crash", 0) for i in range(2000)), nodes=2)
    assert ended(operator) is JobPhase.FAILED
    assert operator.memory.restarts == {"crash": 4}
    assert sum(n.startswith("worker-0-") for n in operator.world.started) == 4


def test_a_store_lost_is_one_incident() -> None:
    operator = run(Event(30, "kill-store"), **ELASTIC)
    assert ended(operator) is JobPhase.SUCCEEDED
    assert operator.memory.restarts == {"node-lost": 1}
    assert operator.world.started.count("store-0-1") == 1


@pytest.mark.parametrize("kind", ["notice-store", "drain-store"])
def test_a_store_that_is_to_go_costs_one_loss_and_no_step(kind: Kind) -> None:
    operator = run(Event(38, kind, value=60.0), **ELASTIC)
    assert ended(operator) is JobPhase.SUCCEEDED
    assert operator.memory.restarts == {"preempted" if kind == "notice-store" else "deleted": 1}
    (recovered,) = [e for e in operator.ledger if e.kind == "recovered"]
    assert recovered.steps_redone == 0, "expected all to have saved before the store went"
    assert operator.world.started.count("store-0-1") == 1 and "store-0-2" not in operator.world.started


def test_a_frozen_world_is_freed() -> None:
    operator = run(Event(30, "freeze"), nodes=2)
    assert ended(operator) is JobPhase.SUCCEEDED
    assert operator.memory.restarts == {"hang": 1}


def test_suspended_and_resumed() -> None:
    operator = run(Event(30, "suspend"), Event(500, "resume"), **ELASTIC)
    assert ended(operator) is JobPhase.SUCCEEDED
    assert operator.memory.restarts == {}
    assert 430 <= operator.memory.suspended_seconds <= 470


def test_without_room_a_cluster_job_waits_and_a_local_one_fails() -> None:
    events = (Event(0, "capacity", value=2), Event(600, "capacity", value=8))
    patient = run(*events, nodes=3, startTimeoutSeconds=60)
    assert ended(patient) is JobPhase.SUCCEEDED
    assert patient.world.now > T0 + 600
    local = run(*events, nodes=3, startTimeoutSeconds=60, capabilities=LOCAL)
    assert local.memory.outcome is not None and local.memory.outcome.reason == "StartTimeout"


def test_two_jobs_that_fit_one_at_a_time_do_not_hold_each_other_up() -> None:
    """A job that got half of what it needs gives it back: the room is free in between."""
    operator = play(make_job(nodes=3, startTimeoutSeconds=60), [Event(0, "capacity", value=2)], limit=80.0)
    assert not [
        p for p in operator.world.processes.values() if p.living and p.start.name.startswith("worker")
    ]


def test_refused_starts_are_tried_again_under_the_same_number() -> None:
    operator = run(Event(0, "refuse"), Event(200, "accept"), nodes=2)
    assert ended(operator) is JobPhase.SUCCEEDED
    assert operator.world.started == ["store-0-0", "worker-0-0", "worker-1-0"]


def test_deleted_on_the_way() -> None:
    operator = run(Event(30, "delete-job"), cleanup={"checkpoints": "Delete"}, **ELASTIC)
    assert operator.released and settled(operator)
    assert operator.memory.incidents == ()


def test_the_end_of_training_with_a_loss_in_the_very_last_step() -> None:
    for at in (60.0, 60.5, 61.0, 61.5, 62.0, 62.5):
        operator = run(Event(at, "kill", 1), nodes=2)
        assert ended(operator) is JobPhase.SUCCEEDED


def story(operator: Operator) -> list[tuple[str, str | None, str]]:
    """What must not depend on when an operator died: who was lost to what, and how it ended."""
    outcome = operator.memory.outcome
    lost = [
        (e.kind, e.cause, " ".join(n.rsplit("-", 1)[0] for n in e.nodes))
        for e in operator.ledger
        if e.kind == "incident"
    ]
    return [*lost, ("outcome", outcome.reason if outcome else None, "")]


LIFE = (Event(20, "kill", 1), Event(45, "evict", 0), Event(80, "kill-store"), Event(110, "crash", 1))


def test_an_operator_that_dies_before_any_of_its_deeds_changes_nothing() -> None:
    job = make_job(nodes={"min": 1, "max": 2})
    pace = Pace(steps=80)
    undisturbed = play(job, LIFE, pace=pace, poll=2.0)
    assert ended(undisturbed) is JobPhase.SUCCEEDED
    expected = story(undisturbed)
    assert len(expected) == 5
    for deed in range(undisturbed.deeds):
        # Dies before deed number `deed`, counted from its beginning.
        operator = play(job, [Event(0, "operator-dies", value=deed), *LIFE], pace=pace, poll=2.0)
        laws.always(operator)
        assert ended(operator) is JobPhase.SUCCEEDED, f"killed before deed {deed}"
        assert story(operator) == expected, f"killed before deed {deed}"


def test_the_same_look_many_times_is_like_one() -> None:
    job = make_job(nodes={"min": 1, "max": 2})
    operator = play(job, LIFE[:2])
    assert ended(operator) is JobPhase.SUCCEEDED
    plan = operator.look(times=5)
    assert plan.actions == () and plan.ledger == () and not plan.urgent


def test_a_recorded_history_plays_again() -> None:
    first = run(*LIFE[:3], nodes={"min": 1, "max": 2})
    again = play(make_job(nodes={"min": 1, "max": 2}), recorded(first.ledger, T0))
    # An eviction comes back as a preemption that the nodes are told of.
    assert story(again) == story(first)


def test_events_are_plain_values() -> None:
    event = Event(3.0, "notice", 1, 20.0)
    assert Event(**dataclasses.asdict(event)) == event
