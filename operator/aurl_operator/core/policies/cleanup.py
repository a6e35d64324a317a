"""What goes when a job has ended or is deleted: nodes, store, remains of pods, checkpoints, the object.

While a job runs, only the remains of its last `REMAINS` ended processes are kept, and none that still hold
what a replacement may need: a machine, or the quota, which counts a pod of a lost machine until its object is
gone. Checkpoints are deleted by a cleaner, a process of the job's own image with the job's own secret, in at
most `TRIES` tries: the job's deletion is never blocked for ever, and what stays is told. One that finds the
place to be another run's says so, and no other is tried. Not here: when a job has ended (the others).
"""

from __future__ import annotations

from collections.abc import Sequence

from aurl_operator.core.accounts.booking import Ended
from aurl_operator.core.names import slot
from aurl_operator.core.observed import Process, Role, State
from aurl_operator.core.plan import Action, DeleteJob, Release, Remove
from aurl_operator.core.policies.deadline import DEADLINE
from aurl_operator.core.policies.elastic import order
from aurl_operator.core.situation import Situation
from aurl_trainer.contract import Cause, ExitCode, LedgerEntry

REMAINS = 10
"""Ended processes whose remains stay while the job runs."""

LINGER_SECONDS = 10.0
"""What other containers of an ended node's pod get to end."""

TRIES = 3
"""Cleaners started before the job is let go with its checkpoints."""

CLEANER_SECONDS = 600.0
"""How long one cleaner may take."""


def clean(s: Situation, ended: Sequence[Ended]) -> tuple[Situation, tuple[Action, ...]]:
    """Stops what is to stop, and says what to remove."""
    if s.observed.deleting:
        s, actions = _deleted(s, ended)
        return s, (*_lingering(s), *actions)
    if s.memory.outcome is not None:
        return _after_end(s)
    if s.suspended and not s.nodes:
        for store in s.living(Role.STORE):
            s = s.stop(store.uid, "suspended")
    return s, (*_lingering(s), *_old_remains(s))


def _after_end(s: Situation) -> tuple[Situation, tuple[Action, ...]]:
    cleanup = s.spec.cleanup
    outcome = s.memory.outcome
    assert outcome is not None
    removable = s.observed.capabilities.removes_jobs
    if cleanup.pods != "None" or not removable:
        s = _stop_all(s, "the job has ended")
    elif outcome.reason == DEADLINE:
        # What it has to stop is what runs; what has ended stays, as asked.
        s = _stop_all(s, "the deadline is over")
    actions: list[Action] = []
    if cleanup.pods != "None":
        actions += _lingering(s)
    if cleanup.pods == "All":
        actions += [Remove(p.uid, p.name) for p in s.observed.processes if _is_remains(p)]
    if cleanup.ttl_seconds_after_finished is not None and removable:
        due = outcome.at + cleanup.ttl_seconds_after_finished
        if s.now >= due:
            actions.append(DeleteJob())
        else:
            s = s.wake(due)
    return s, tuple(actions)


def _deleted(s: Situation, ended: Sequence[Ended]) -> tuple[Situation, tuple[Action, ...]]:
    s = _stop_all(s, "the job is deleted")
    if s.nodes or s.living(Role.STORE):
        return s, ()
    wanted = s.spec.cleanup.checkpoints
    never_ran = s.memory.first_ready_at is None and s.memory.durable_step is None
    if wanted == "Keep" or never_ran:
        return s, (Release(),)
    cleaners = [e for e in ended if e.role is Role.CLEANER]
    if s.memory.cleaned or any(e.cause is Cause.SUCCEEDED for e in cleaners):
        return s.remember(cleaned=True), (Release("checkpoints deleted"),)
    if s.memory.let_go:
        return s, (Release("checkpoints stay"),)
    for end in cleaners:
        if end.exit_code == ExitCode.REFUSED:
            return _let_go(s, f"checkpoints stay: {end.message}")
    for cleaner in s.living(Role.CLEANER):
        due = s.memory.live[cleaner.uid].since + CLEANER_SECONDS
        s = s.wake(due) if s.now < due else s.stop(cleaner.uid, "takes too long", kill=True)
    if s.living(Role.CLEANER) or any(i.role is Role.CLEANER for i in s.memory.starting):
        return s, ()
    refused = next((r for r in s.refusals if r.role is Role.CLEANER), None)
    if refused is not None:
        return _let_go(s, f"checkpoints stay: the cleaner was refused: {refused.waiting.message}")
    if s.memory.attempts.get(slot(Role.CLEANER, 0), 0) >= TRIES:
        last = f": {cleaners[-1].message}" if cleaners else ""
        return _let_go(s, f"checkpoints stay: {TRIES} cleaners failed{last}")
    s, start = order(s, Role.CLEANER, 0, keep_best=wanted == "KeepBest")
    return s, (start,)


def _let_go(s: Situation, why: str) -> tuple[Situation, tuple[Action, ...]]:
    """Told once: from then on it is remembered, however long others hold the job."""
    entry = LedgerEntry(kind="cleanup", at=s.now, id="cleanup", message=why)
    return s.remember(let_go=True).tell(entry), (Release(why),)


def _stop_all(s: Situation, reason: str) -> Situation:
    for node in s.nodes:
        s = s.stop(node.uid, reason)
    if not s.nodes:
        # Agents that save need the store to agree; it goes last.
        for store in s.living(Role.STORE):
            s = s.stop(store.uid, reason)
    return s


def _lingering(s: Situation) -> tuple[Remove, ...]:
    """What ended and still holds something: by force where no machine is there to end it in good order."""
    booked = [p for p in s.observed.processes if p.uid in s.memory.booked]
    lost = [Remove(p.uid, p.name) for p in booked if _is_lost(p)]
    beside = [Remove(p.uid, p.name, LINGER_SECONDS) for p in booked if p.lingers and not p.stopping]
    return (*lost, *beside)


def _old_remains(s: Situation) -> tuple[Remove, ...]:
    remains = [p for p in s.observed.processes if _is_remains(p) and p.uid in s.memory.booked]
    remains.sort(key=lambda p: (p.end.at if p.end else 0.0, p.name))
    return tuple(Remove(p.uid, p.name) for p in remains[: max(0, len(remains) - REMAINS)])


def _is_remains(process: Process) -> bool:
    """Whether it has ended and holds nothing: what is left of it is for people to read."""
    return process.state is State.ENDED and not process.lingers and not _is_lost(process)


def _is_lost(process: Process) -> bool:
    return process.end is not None and process.end.node_lost
