"""One look at one job, and what to do about it: `reconcile`, a pure function.

The order of the rules is here and nowhere else: first what happened (progress, ends), then what it means
(cost, success, limits), then what there should be, last what to tell. Not here: the rules themselves, one
file each in policies/.
"""

from __future__ import annotations

import dataclasses

from aurl_operator.core.accounts import ledger, noted
from aurl_operator.core.accounts.booking import book
from aurl_operator.core.memory import Memory
from aurl_operator.core.memory import Stop as Ordered
from aurl_operator.core.observed import Observed, Process, Role
from aurl_operator.core.plan import Plan, Stop
from aurl_operator.core.policies import cleanup, deadline, elastic, hang, recovery, start, success, suspend
from aurl_operator.core.revive import revive_once
from aurl_operator.core.situation import Situation
from aurl_operator.core.status import finish_phase, status_of

KILL_MARGIN = 30.0
"""Seconds beyond the grace period before a process that does not go is killed."""

_MARKS = ("progress_at", "productive_seconds", "advance", "furthest_step", "resumed_from", "outbox")
"""Fields of the memory that only follow progress: losing their last change does no harm."""

_SETTLED = tuple(f.name for f in dataclasses.fields(Memory) if f.name not in _MARKS)

_ARRIVALS = ("live", "starting", "attempts", "conditions", "first_ready_at")
"""Fields of the memory that change when an ordered process is seen or ready, and nothing else happens."""


def reconcile(observed: Observed) -> Plan:
    """What to persist, write and do about the job as it is `observed`."""
    s = Situation(observed, revive_once(observed.memory, observed.resume))
    s, ended = book(s)
    # In the order in which it happened: what was lost before the newest step, that step, what was lost since.
    mark = observed.progress.at if observed.progress else observed.now
    s = recovery.charge(s, [e for e in ended if e.at <= mark])
    s = ledger.advance(s)
    s = noted.take(s)
    s = recovery.charge(s, [e for e in ended if e.at > mark])
    s = ledger.saved(s, ended)
    s = success.finish(s, ended)
    s = start.refuse_impossible(s)
    s = deadline.enforce(s)
    s = suspend.suspend(s)
    s = elastic.rounds(s, ended)
    s = hang.judge(s)
    s = start.watch(s)
    s = ledger.whole_again(s)
    s = elastic.surplus(s)
    s, starts = elastic.starts(s)
    s, others = cleanup.clean(s, ended)
    s = _bury(s)
    s = finish_phase(s)
    s, stops = _stops(s)
    memory = s.remember(outbox=s.entries).memory
    actions = (*stops, *starts, *others)
    return Plan(
        memory=memory,
        status=status_of(s),
        ledger=s.entries,
        actions=actions,
        wake_after=max(0.0, min(s.wakes) - s.now) if s.wakes else None,
        urgent=bool(s.entries) or _differs(memory, observed.memory),
        can_wait=not actions and not ended and _only_arrivals(memory, observed.memory),
        outcome=memory.outcome,
    )


def _bury(s: Situation) -> Situation:
    """When a job has failed, its open incidents are over: nothing recovers from them any more."""
    outcome = s.memory.outcome
    if outcome is None:
        return s
    still_open = [i for i in s.memory.incidents if not i.over]
    return ledger.close(s, outcome.at, still_open, recovered=False)


def _stops(s: Situation) -> tuple[Situation, tuple[Stop, ...]]:
    """Decided stops whose effect is not seen yet, and kills of those that stay in spite of a notice."""
    found: list[Stop] = []
    for process in s.observed.processes:
        stop = s.memory.stopping.get(process.uid)
        if process.end is not None:
            continue
        if stop is None:
            if process.notice is not None and not process.stopping and _hears(s, process):
                # Its machine goes: it is told so at once, and its end stays the machine's doing, not ours.
                grace = s.grace(process.uid)
                found.append(Stop(process.uid, process.name, False, grace, process.notice.message))
            continue
        kill, again = _patience(s.now, stop, process)
        if kill or not process.stopping:
            found.append(Stop(process.uid, process.name, kill, stop.grace_seconds, stop.reason))
        if not kill:
            s = s.wake(again)
    return s, tuple(found)


def _hears(s: Situation, process: Process) -> bool:
    """Whether a notice is passed on: to a store only when the nodes that need it to save have left."""
    in_use = process.role is Role.STORE and elastic.needed(s, process)
    return process.uid in s.memory.live and not in_use


def _patience(now: float, stop: Ordered, process: Process) -> tuple[bool, float]:
    """Whether a process that was told to go is killed, and when to look again if not.

    Its time to save counts from when it was told: what was decided long ago, by an operator that died before
    it could act or had no way to, is a notice still.
    """
    if not stop.grace_seconds:
        return True, now
    if process.stopping_since is None:
        return False, now + KILL_MARGIN
    due = max(stop.since, process.stopping_since) + stop.grace_seconds + KILL_MARGIN
    return now >= due, due


def _differs(new: Memory, old: Memory) -> bool:
    """Whether more than marks of progress have changed."""
    return bool(_changed(new, old))


def _only_arrivals(new: Memory, old: Memory) -> bool:
    """Whether nothing has changed but what arrivals and words about waiting change."""
    return old.phases > 0 and all(name in _ARRIVALS for name in _changed(new, old))


def _changed(new: Memory, old: Memory) -> list[str]:
    """Fields that have changed, without marks of progress."""
    if new is old:
        return []
    return [name for name in _SETTLED if getattr(new, name) != getattr(old, name)]
