"""Who lives, who ended: every end is booked exactly once, under its UID.

A process that vanished unseen is booked as deleted, never as a crash. A start that was ordered and is not
seen is passed over after a moment: its number is never used again, so no process is started twice.
Not here: what an end costs (policies/recovery.py), how its cause is told (causes.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from aurl_operator.core.accounts.causes import conclude
from aurl_operator.core.memory import Intent, Live, Memory
from aurl_operator.core.names import slot
from aurl_operator.core.observed import Process, Role, State
from aurl_operator.core.situation import Situation
from aurl_trainer.contract import Cause, LedgerEntry

INTENT_SECONDS = 5.0
"""How long an ordered start may stay unseen before its number is given up."""

BOOKED_SECONDS = 600.0
"""How long a booked UID is remembered at least, and as long as it is seen."""


@dataclass(frozen=True)
class Ended:
    """A process whose end has just been booked. Times in seconds since the epoch."""

    role: Role
    uid: str
    name: str
    index: int
    round: int
    since: float
    """When it was started, as far as known."""
    at: float
    cause: Cause
    message: str
    was_ready: bool
    machine_lost: bool = False
    """The cluster says that its machine is lost."""
    traceback: str | None = None
    step: int | None = None
    exit_code: int | None = None
    durable_step: int | None = None
    """Of the newest checkpoint, as it said when it ended well or left."""
    durable_name: str | None = None


def book(situation: Situation) -> tuple[Situation, tuple[Ended, ...]]:
    """Takes in new processes, ends and refusals. The ends come in the order in which they happened."""
    s = _refusals(situation)
    s = _arrivals(s)
    s, ended = _ends(s)
    s = _given_up(s)
    return _forget(s), ended


def _refusals(s: Situation) -> Situation:
    """A refused start never existed: its number is free again."""
    memory = s.memory
    starting = list(memory.starting)
    attempts = dict(memory.attempts)
    for refusal in s.observed.refusals:
        for intent in tuple(starting):
            same = (intent.role, intent.index, intent.attempt) == (
                refusal.role,
                refusal.index,
                refusal.attempt,
            )
            if same and refusal.at >= intent.since:
                starting.remove(intent)
                attempts[slot(intent.role, intent.index)] = intent.attempt
    return s.remember(starting=tuple(starting), attempts=attempts)


def _arrivals(s: Situation) -> Situation:
    """Processes seen for the first time are live from now on, those already ended too, until booked."""
    memory = s.memory
    live = dict(memory.live)
    starting = list(memory.starting)
    attempts = dict(memory.attempts)
    entries: list[LedgerEntry] = []
    for process in s.observed.processes:
        if process.uid in live or process.uid in memory.booked:
            continue
        intent = next((i for i in starting if _is(i, process)), None)
        if intent is not None:
            starting.remove(intent)
        since = min(process.since or s.now, intent.since if intent else s.now)
        live[process.uid] = Live(
            process.role, process.name, process.index, process.attempt, process.round, since
        )
        key = slot(process.role, process.index)
        attempts[key] = max(attempts.get(key, 0), process.attempt + 1)
        entries.append(
            LedgerEntry(
                kind="node",
                at=since,
                id=f"{process.uid}/start",
                nodes=[process.name],
                uids=[process.uid],
                message="started",
            )
        )
    return s.remember(live=live, starting=tuple(starting), attempts=attempts).tell(*entries)


def _is(intent: Intent, process: Process) -> bool:
    return (intent.role, intent.index, intent.attempt) == (process.role, process.index, process.attempt)


def _ends(s: Situation) -> tuple[Situation, tuple[Ended, ...]]:
    seen = {p.uid: p for p in s.observed.processes}
    ended: list[Ended] = []
    for uid, known in s.memory.live.items():
        process = seen.get(uid)
        if process is None:
            ended.append(_vanished(s, uid, known))
        elif process.end is not None:
            ended.append(_ended(s, process, known))
    ended.sort(key=lambda e: (e.at, e.name))
    gone = {e.uid for e in ended}
    live = {u: known for u, known in s.memory.live.items() if u not in gone}
    # One that was booked as gone and came back is stopped although it does not live, as long as it is seen.
    there = (live.keys() | seen.keys()) - gone
    s = s.remember(
        live=live,
        stopping={u: stop for u, stop in s.memory.stopping.items() if u in there},
        booked={**s.memory.booked, **dict.fromkeys(gone, s.now)},
    )
    return s.tell(*(_entry(e) for e in ended)), tuple(ended)


def _ended(s: Situation, process: Process, known: Live) -> Ended:
    assert process.end is not None
    end = process.end
    found = conclude(
        end,
        process.role,
        s.spec.recovery.rules,
        stopped=process.uid in s.memory.stopping,
        noticed=process.notice is not None,
    )
    record = end.termination
    return Ended(
        role=process.role,
        uid=process.uid,
        name=process.name,
        index=process.index,
        round=process.round,
        since=known.since,
        at=min(end.at, s.now),
        cause=found.cause,
        message=found.message,
        was_ready=process.ready,
        machine_lost=end.node_lost,
        traceback=record.traceback if record else None,
        step=record.step if record else None,
        exit_code=record.exit_code if record else end.exit_code,
        durable_step=record.durable_step if record else None,
        durable_name=record.durable_name if record else None,
    )


def _vanished(s: Situation, uid: str, known: Live) -> Ended:
    ours = uid in s.memory.stopping
    cause = Cause.STOPPED if ours else Cause.DELETED
    message = "stopped by Aurl" if ours else "gone while nobody looked"
    return Ended(
        known.role,
        uid,
        known.name,
        known.index,
        known.round,
        known.since,
        s.now,
        cause,
        message,
        was_ready=True,
    )


def _entry(ended: Ended) -> LedgerEntry:
    return LedgerEntry(
        kind="node",
        at=ended.at,
        id=f"{ended.uid}/end",
        cause=ended.cause.value,
        nodes=[ended.name],
        uids=[ended.uid],
        message=ended.message,
        step=ended.step,
    )


def _given_up(s: Situation) -> Situation:
    kept = tuple(i for i in s.memory.starting if s.now <= i.since + INTENT_SECONDS)
    for intent in kept:
        s = s.wake(intent.since + INTENT_SECONDS + 0.001)
    return s.remember(starting=kept)


def _forget(s: Situation) -> Situation:
    memory: Memory = s.memory
    seen = {p.uid for p in s.observed.processes}
    # Nothing is renewed: a look at which nothing happened leaves the memory as it was.
    booked = {u: at for u, at in memory.booked.items() if u in seen or s.now - at <= BOOKED_SECONDS}
    s = s.remember(booked=booked)
    for process in s.observed.processes:
        if process.uid in booked and process.state is not State.ENDED:
            # Booked as gone, and yet it lives: its place may be taken by another by now.
            s = s.stop(process.uid, "booked as gone, but still there", kill=True)
    return s
