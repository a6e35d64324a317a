"""Losses on purpose: how they are written, when they strike, and what a table says of them."""

from __future__ import annotations

import pytest

from aurl_operator.api.status import JobStatus
from aurl_operator.backends.local.rehearsal import Event, Kind, Strike
from aurl_operator.backends.local.supervisor import Moment
from aurl_operator.commands.local.screen import describe, duration
from aurl_operator.commands.rehearse import costs
from aurl_trainer.contract import LedgerEntry, Progress


def moment(now: float, step: int | None) -> Moment:
    progress = step if step is None else Progress(0, 1, 1, "step", step, 100, now)
    return Moment(now, (), progress, JobStatus(), (), 0)


@pytest.mark.parametrize(
    ("kind", "text", "event"),
    [
        (Kind.KILL, "worker-1@step:40", Event(Kind.KILL, "worker-1", step=40)),
        (Kind.PREEMPT, "worker-12@time:1.5s", Event(Kind.PREEMPT, "worker-12", seconds=1.5)),
        (Kind.KILL, "store@time:30", Event(Kind.KILL, "store", seconds=30.0)),
        (Kind.KILL_RANK, "worker-0/2@step:0", Event(Kind.KILL_RANK, "worker-0", step=0, rank=2)),
    ],
)
def test_events_are_read(kind: Kind, text: str, event: Event) -> None:
    assert Event.parse(kind, text) == event
    assert str(event) == f"--{kind} {text if text.endswith('s') or 'step' in text else text + 's'}"


def test_an_event_is_due_when_its_step_is_done() -> None:
    event = Event(Kind.KILL, "worker-1", step=40)
    assert not event.is_due(moment(1e9, None), 0.0)
    assert not event.is_due(moment(1e9, 39), 0.0)
    assert event.is_due(moment(0.0, 40), 0.0)
    assert event.is_due(moment(0.0, 43), 0.0), "steps may be passed between two looks"


def test_an_event_is_due_when_its_time_has_passed() -> None:
    event = Event(Kind.KILL, "store", seconds=30.0)
    assert not event.is_due(moment(129.9, 500), 100.0)
    assert event.is_due(moment(130.0, None), 100.0)


def test_costs_come_from_the_ledger_by_the_process_that_was_struck() -> None:
    kill, late = Event(Kind.KILL, "worker-1", step=5), Event(Kind.PREEMPT, "worker-0", step=90)
    rank = Event(Kind.KILL_RANK, "worker-0", step=50, rank=0)
    ledger = [
        LedgerEntry("incident", 9.0, "i/other", cause="crash", uids=["uid-x"]),
        LedgerEntry("incident", 10.2, "i/noted", cause="save-failed"),
        LedgerEntry("incident", 10.5, "i/1", cause="node-lost", uids=["uid-1"]),
        LedgerEntry("recovered", 18.0, "i/1", recovery_seconds=7.5, steps_redone=3, lost_seconds=9.0),
        LedgerEntry("incident", 50.1, "i/noted2", cause="checkpoint-damaged"),
        LedgerEntry("incident", 50.2, "i/2", cause="crash", uids=["uid-0"]),
    ]
    strikes = [Strike(kill, 10.0, "uid-1", "worker-1-0", 6), Strike(rank, 50.0, "uid-0", "worker-0-0", 50)]
    rows = costs(strikes, [late], ledger)
    assert [r["event"] for r in rows] == [str(kill), str(rank), str(late)]
    assert rows[0] == {
        "event": "--kill worker-1@step:5",
        "struck": "worker-1-0",
        "at_step": 6,
        "cause": "node-lost",
        "recovery_seconds": 7.5,
        "steps_redone": 3,
        "lost_seconds": 9.0,
    }
    assert rows[1]["cause"] == "crash" and rows[1]["recovery_seconds"] is None, "not recovered from yet"
    assert rows[2]["struck"] is None, "an event that never struck is shown as such"


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (
            LedgerEntry(
                "incident", 1.0, "i", cause="node-lost", nodes=["worker-1-0"], step=40, message="gone"
            ),
            "lost worker-1-0 (node-lost) at step 40: gone",
        ),
        (
            LedgerEntry("recovered", 1.0, "i", nodes=["worker-1-0"], recovery_seconds=8.25, steps_redone=3),
            "recovered from the loss of worker-1-0: next step after 8.2 s, 3 steps done again",
        ),
        (
            LedgerEntry("incident", 1.0, "i", cause="save-failed", step=40, message="no space is left there"),
            "save-failed at step 40: no space is left there",
        ),
        (LedgerEntry("phase", 1.0, "p", phase="Starting", message="Starting: 0 of 1"), "Starting: 0 of 1"),
        (LedgerEntry("node", 1.0, "n", nodes=["worker-0-0"], message="started"), "worker-0-0: started"),
    ],
)
def test_the_ledger_in_words(entry: LedgerEntry, text: str) -> None:
    assert describe(entry) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (63.4, "1:03"), (3723, "1:02:03"), (-1, "0:00")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
