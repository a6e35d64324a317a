"""What an end costs: incidents, budgets, backoff, and when it is enough.

- Ends that belong together are one incident and are charged once: those within `WINDOW` seconds of the
  first, of processes that ran already when it happened. A failure right after the loss of a machine belongs
  to that loss; a loss of a machine right after a failure does not belong to the failure.
- A replacement that never ran belongs to the loss it was to mend. It costs nothing if it was put on a machine
  that was lost already; one that its machine refused (the kubelet rejects it) charges again, and backs off.
- Each incident charges one budget. `limit` restarts are allowed; the incident after that many ends the job.
  A budget with `refill: Progress` counts incidents since the last new durable step: a checkpoint further
  than any before. So a job that gets on never uses its budgets up, and one that fails again and again at
  the same place ends after exactly `limit` restarts, however quickly or slowly it fails.
- A preemption never charges the budget of crashes. A final error ends the job at once.

Not here: how causes are told apart (accounts/causes.py), which nodes are started again (elastic.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from aurl_operator.api.recovery import Backoff, CrashBudget, HangBudget, LossBudget, MemoryBudget, Recovery
from aurl_operator.core.accounts.booking import Ended
from aurl_operator.core.memory import Incident, Tally
from aurl_operator.core.names import delay
from aurl_operator.core.observed import Role
from aurl_operator.core.situation import Situation
from aurl_trainer.contract import Cause, ExitCode, LedgerEntry

WINDOW = 10.0
"""Seconds within which losses are one incident."""

KEPT = 20
"""Incidents remembered, and shown in the status."""

KEPT_OPEN = 100
"""Incidents remembered while no step has been made after them."""

NAMED = 20
"""Nodes and UIDs that an incident names, as many as a replacement bars; of the others it has the number."""

MESSAGE = 1024
"""Characters of an incident's message."""

UNCHARGED = (Cause.SUCCEEDED, Cause.STOPPED)

BUDGETS: dict[Cause, str] = {
    Cause.PREEMPTED: "preemptions",
    Cause.DELETED: "preemptions",
    Cause.NODE_LOST: "node_lost",
    Cause.STORE_LOST: "node_lost",
    Cause.CRASH: "crashes",
    Cause.HANG: "hang",
    Cause.OUT_OF_MEMORY: "out_of_memory",
}
"""The budget of each cause: a field of `recovery`. FINAL_ERROR has none, nor has what ends no node."""

_OF_MACHINES = (Cause.PREEMPTED, Cause.DELETED, Cause.NODE_LOST, Cause.STORE_LOST)

_OWN_FAULT = {
    # `aurl run` exits with what was wrong where the rank could tell.
    ExitCode.INVALID_JOB,
    ExitCode.DATA,
    ExitCode.CHECKPOINT,
    ExitCode.REFUSED,
    ExitCode.MISSING,
}

AnyBudget = LossBudget | CrashBudget | HangBudget | MemoryBudget


def charge(s: Situation, ended: Sequence[Ended]) -> Situation:
    """Makes incidents of the ends that are nobody's wish, and charges them."""
    for end in ended:
        if end.cause in UNCHARGED or end.role is Role.CLEANER or not s.open:
            continue
        known = next((i for i in reversed(s.memory.incidents) if _belongs(i, end)), None)
        s = _open(s, end) if known is None else _join(s, known, end)
        if known is not None and not _together(known, end) and not end.machine_lost:
            again = dataclasses.replace(
                known,
                id=f"incident/{end.uid}",
                cause=end.cause,
                at=end.at,
                nodes=(end.name,),
                message=end.message,
            )
            s = _count(s, BUDGETS[end.cause], again)
        if end.cause is Cause.FINAL_ERROR:
            code = ExitCode(end.exit_code) if end.exit_code in _OWN_FAULT else ExitCode.RUN_FAILED
            s = s.fail("FinalError", f"{end.name}: {end.message}", code)
    return s


def charge_hang(s: Situation, id: str, message: str) -> Situation:
    """Charges a hang that the operator itself saw: the whole world stood still, no process ended."""
    nodes = s.nodes
    if len(nodes) > NAMED:
        s = s.remember(unnamed={**s.memory.unnamed, id: len(nodes) - NAMED})
    return _record(
        s,
        Incident(
            id=id,
            cause=Cause.HANG,
            at=s.now,
            nodes=tuple(p.name for p in nodes[:NAMED]),
            uids=tuple(p.uid for p in nodes[-NAMED:]),
            message=message,
            generation=s.memory.generation,
            furthest=s.memory.furthest_step,
            asleep=s.asleep,
        ),
    )


def refill(s: Situation) -> Situation:
    """After a new durable step: budgets that refill are whole again, and backoff starts over."""
    return s.remember(tallies={k: dataclasses.replace(t, streak=0) for k, t in s.memory.tallies.items()})


def held_until(s: Situation) -> float:
    """No node or store is started before: the longest backoff under way."""
    return max((t.until for t in s.memory.tallies.values()), default=0.0)


def budget(recovery: Recovery, name: str) -> AnyBudget:
    """A budget by its name in `BUDGETS`."""
    found: AnyBudget = getattr(recovery, name)
    return found


def _belongs(incident: Incident, end: Ended) -> bool:
    """Whether this end is part of an open incident."""
    never_ran = not end.was_ready and end.cause is Cause.NODE_LOST and incident.cause in _OF_MACHINES
    return not incident.over and (never_ran or _together(incident, end))


def _together(incident: Incident, end: Ended) -> bool:
    """Whether what ended was there when the incident happened, and was taken along by it."""
    near = abs(end.at - incident.at) <= WINDOW
    was_there = end.since <= incident.at
    kind = incident.cause in _OF_MACHINES or end.cause not in _OF_MACHINES
    return near and was_there and kind and end.cause is not Cause.FINAL_ERROR


def _join(s: Situation, incident: Incident, end: Ended) -> Situation:
    unnamed = s.memory.unnamed
    if len(incident.nodes) >= NAMED:
        unnamed = {**unnamed, incident.id: unnamed.get(incident.id, 0) + 1}
    message = incident.message
    if not _together(incident, end) and end.message not in message:
        message = f"{message}; {end.name}: {end.message}"[:MESSAGE]
    joined = dataclasses.replace(
        incident,
        message=message,
        nodes=(*incident.nodes, end.name)[:NAMED],
        uids=(*incident.uids, end.uid)[-NAMED:],
        traceback=incident.traceback or end.traceback,
        furthest=_latest(incident.furthest, end.step),
    )
    return s.remember(
        incidents=tuple(joined if i.id == incident.id else i for i in s.memory.incidents),
        unnamed=unnamed,
        furthest_step=_latest(s.memory.furthest_step, end.step),
    )


def _open(s: Situation, end: Ended) -> Situation:
    furthest = _latest(s.memory.furthest_step, end.step)
    return _record(
        s.remember(furthest_step=furthest),
        Incident(
            id=f"incident/{end.uid}",
            cause=end.cause,
            at=end.at,
            nodes=(end.name,),
            uids=(end.uid,),
            message=end.message[:MESSAGE],
            traceback=end.traceback,
            generation=s.memory.generation,
            furthest=furthest,
            asleep=s.asleep,
        ),
        # A store that fails by itself is a program that crashes, and must not come back for ever.
        "crashes" if end.role is Role.STORE and end.cause is Cause.STORE_LOST else None,
    )


def _record(s: Situation, incident: Incident, budget_name: str | None = None) -> Situation:
    s = keep(s, incident)
    name = BUDGETS.get(incident.cause) if budget_name is None else budget_name
    return s if name is None else _count(s, name, incident)


def keep(s: Situation, incident: Incident) -> Situation:
    """Remembers and tells a new incident; it charges nothing."""
    cause = incident.cause.value
    incidents = _trim((*s.memory.incidents, incident))
    kept = {i.id for i in incidents}
    s = s.remember(
        incidents=incidents,
        unnamed={i: more for i, more in s.memory.unnamed.items() if i in kept},
        restarts={**s.memory.restarts, cause: s.memory.restarts.get(cause, 0) + 1},
    )
    return s.tell(
        LedgerEntry(
            kind="incident",
            at=incident.at,
            id=incident.id,
            cause=cause,
            nodes=list(incident.nodes),
            uids=list(incident.uids),
            message=incident.message,
            step=incident.furthest,
            traceback=incident.traceback,
            generation=incident.generation,
        )
    )


def _count(s: Situation, name: str, incident: Incident) -> Situation:
    rule = budget(s.spec.recovery, name)
    backoff: Backoff = rule.backoff
    before = s.memory.tallies.get(name, Tally())
    streak = before.streak + 1
    until = max(before.until, incident.at + delay(backoff, streak, incident.id))
    tally = Tally(before.total + 1, streak, until)
    s = s.remember(tallies={**s.memory.tallies, name: tally})
    used = streak if rule.refill == "Progress" else tally.total
    if rule.limit is None or used <= rule.limit:
        return s
    since = " without a new checkpoint" if rule.refill == "Progress" and s.spec.training is not None else ""
    return s.fail(
        "BudgetExhausted",
        f"{incident.cause.value} for the {_ordinal(used)} time{since}, {rule.limit} restarts are allowed; "
        f"{', '.join(incident.nodes)}: {incident.message}",
    )


def _trim(incidents: tuple[Incident, ...]) -> tuple[Incident, ...]:
    """The newest, and those still open; only the newest keep their tracebacks."""
    older, newest = incidents[:-KEPT], incidents[-KEPT:]
    still_open = [dataclasses.replace(i, traceback=None) for i in older if not i.over]
    return (*still_open[-KEPT_OPEN:], *newest)


def _ordinal(n: int) -> str:
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def _latest(a: int | None, b: int | None) -> int | None:
    return max((x for x in (a, b) if x is not None), default=None)
