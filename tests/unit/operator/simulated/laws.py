"""What must hold of every run, whatever happened to it: checked after each look and at the end."""

from __future__ import annotations

from collections import Counter

from aurl_operator.api.status import JobPhase
from aurl_operator.backends.simulated.operator import Operator
from aurl_operator.core.observed import Role
from aurl_operator.core.policies.recovery import budget
from aurl_trainer.contract import NOTICED, Cause

FAULTS = {Cause.CRASH, Cause.HANG, Cause.OUT_OF_MEMORY, Cause.FINAL_ERROR}
"""Causes that are the job's own fault: no loss of a machine may be booked as one."""


def always(operator: Operator) -> None:
    """Laws of any instant."""
    world, memory = operator.world, operator.memory
    names = Counter(world.started)
    assert max(names.values(), default=1) == 1, f"started twice: {[n for n, c in names.items() if c > 1]}"
    # A store that is to go stays beside the next one until its nodes have left.
    goes = {p.uid for p in world.of(Role.STORE) if p.notice is not None or p.stopping_since is not None}
    staying = [p for p in world.processes.values() if p.living and p.uid not in goes]
    living = Counter((p.start.role, p.start.index) for p in staying)
    assert max(living.values(), default=1) == 1, f"two live of one index: {living}"
    for name, tally in memory.tallies.items():
        rule = budget(operator.job.spec.recovery, name)
        used = tally.streak if rule.refill == "Progress" else tally.total
        if rule.limit is not None and used > rule.limit:
            assert used == rule.limit + 1, f"{name}: {used} incidents, {rule.limit} restarts allowed"
            assert memory.outcome is not None, f"{name} is used up and the job goes on"
    _books(operator)
    _status(operator)


def _books(operator: Operator) -> None:
    ids = Counter((e.kind, e.id) for e in operator.ledger)
    assert max(ids.values(), default=1) == 1, f"in the ledger twice: {[i for i, c in ids.items() if c > 1]}"
    ends = [e for e in operator.ledger if e.kind == "node" and e.cause is not None]
    for entry in ends:
        (uid,) = entry.uids
        assert uid in operator.world.ended, f"{entry.nodes} is booked as ended and was never known to end"
    incidents = [e for e in operator.ledger if e.kind == "incident"]
    members = Counter(u for i in operator.memory.incidents for u in i.uids if i.cause is not Cause.HANG)
    assert max(members.values(), default=1) == 1, "one end is part of two incidents"
    for entry in incidents:
        if entry.cause in NOTICED:
            assert not entry.uids, f"{entry.id} ended {entry.nodes}"
    told = [e.id for e in incidents if e.cause in NOTICED]
    happened = [f"noted/{n.id}" for n in operator.world.noted]
    assert set(told) <= set(happened), f"never noticed: {set(told) - set(happened)}"
    known = {e.id for e in incidents if e.cause not in NOTICED}
    for entry in operator.ledger:
        if entry.kind == "recovered":
            assert entry.id in known, f"recovered from {entry.id}, which never happened"
            assert entry.lost_seconds is not None and entry.lost_seconds >= 0


def _status(operator: Operator) -> None:
    plan = operator.plan
    if plan is None:
        return
    status = plan.status
    true = {c.type: c for c in status.conditions if c.status == "True"}
    if status.phase in (JobPhase.PENDING, JobPhase.STARTING, JobPhase.RECOVERING):
        assert "Waiting" in true and true["Waiting"].reason, (
            f"{status.phase} waits for nothing that has a name"
        )
    if status.phase is JobPhase.RUNNING:
        assert "Ready" in true
    if status.goodput.ratio is not None:
        assert 0 <= status.goodput.ratio <= 1


def at_the_end(operator: Operator, seen: set[str]) -> None:
    """Laws of a job that has ended: `seen` are the UIDs that were ever observed."""
    world, memory = operator.world, operator.memory
    assert memory.outcome is not None
    assert not [p.start.name for p in world.processes.values() if p.living], "something outlived the job"
    booked = Counter(e.uids[0] for e in operator.ledger if e.kind == "node" and e.cause is not None)
    for uid in seen & set(world.ended):
        assert booked[uid] == 1, f"the end of {uid} was booked {booked[uid]} times"
    assert all(i.over for i in memory.incidents), "an incident is still open"
    lost, elapsed = sum(memory.lost_seconds.values()), world.now - (memory.started_at or world.now)

    assert lost <= elapsed + 1e-6, f"{lost} s lost in {elapsed} s"
    if memory.outcome.phase is JobPhase.SUCCEEDED:
        assert world.step == world.pace.steps, f"succeeded at step {world.step} of {world.pace.steps}"
