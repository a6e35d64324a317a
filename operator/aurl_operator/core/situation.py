"""One reconcile under way: what was observed, what is remembered by now, and what there is to tell.

Rules are functions from one `Situation` to the next. Not here: any rule.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from aurl_operator.api.spec import JobSpec
from aurl_operator.api.status import JobPhase
from aurl_operator.core.memory import Memory, Outcome, Stop
from aurl_operator.core.observed import Observed, Process, Refusal, Role, State
from aurl_trainer.contract import ExitCode, LedgerEntry

STORE_GRACE = 5.0
"""Seconds for a store that is told to go when its nodes have left: it may still see one that is lost."""


@dataclass(frozen=True)
class Situation:
    """The world as observed, with the memory that the rules so far have made of it."""

    observed: Observed
    memory: Memory
    entries: tuple[LedgerEntry, ...] = ()
    wakes: tuple[float, ...] = ()

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self.observed.now

    @property
    def spec(self) -> JobSpec:
        """What the user wants."""
        return self.observed.job.spec

    @property
    def suspended(self) -> bool:
        """Whether nothing may run."""
        return self.spec.suspend or self.observed.suspended

    @property
    def asleep(self) -> float:
        """Seconds the job has been suspended in all."""
        since = self.memory.suspended_since
        return self.memory.suspended_seconds + (0.0 if since is None else self.now - since)

    @property
    def open(self) -> bool:
        """Whether the job may still start things: it has not ended and is not going away."""
        return self.memory.outcome is None and not self.observed.deleting

    @property
    def elastic(self) -> bool:
        """Whether agents meet through a store; a job of at most one node needs none."""
        return self.spec.nodes.max > 1

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Starts that were refused for the job as it is now."""
        now = (self.observed.job.metadata.generation, self.observed.resume)
        return tuple(r for r in self.observed.refusals if (r.generation, r.resume) == now)

    def living(self, role: Role) -> tuple[Process, ...]:
        """Processes of a role that have not ended, lowest index first."""
        found = [p for p in self.observed.processes if p.role is role and p.uid in self.memory.live]
        return tuple(sorted(found, key=lambda p: (p.index, p.attempt)))

    @property
    def nodes(self) -> tuple[Process, ...]:
        """Nodes that have not ended."""
        return self.living(Role.NODE)

    @property
    def ready(self) -> int:
        """How many nodes are ready and are to stay in this round."""
        return sum(1 for p in self.nodes if p.ready and not self.leaving(p))

    @property
    def whole(self) -> bool:
        """Whether enough nodes are ready to train."""
        return self.ready >= self.spec.nodes.min

    def leaving(self, process: Process) -> bool:
        """Whether a node is on its way out: stopped by us, or of an earlier round."""
        return process.uid in self.memory.stopping or process.round != self.memory.round

    def running(self, process: Process) -> bool:
        """Whether a process has begun to run and has not ended."""
        return process.state is State.RUNNING

    def remember(self, **changes: Any) -> Self:
        """With these fields of the memory changed."""
        # Most rules change nothing at most looks; copying forty fields each time would be half of the work.
        if all(getattr(self.memory, name) == value for name, value in changes.items()):
            return self
        return dataclasses.replace(self, memory=dataclasses.replace(self.memory, **changes))

    def tell(self, *entries: LedgerEntry) -> Self:
        """With these ledger entries besides."""
        if not entries:
            return self
        return dataclasses.replace(self, entries=(*self.entries, *entries))

    def wake(self, at: float) -> Self:
        """Looked at again at `at`, if that is to come."""
        return dataclasses.replace(self, wakes=(*self.wakes, at)) if at > self.now else self

    def grace(self, uid: str) -> float:
        """Seconds a process gets to go: nodes save in them, a store that nobody needs has nothing to do."""
        known = self.memory.live.get(uid)
        if known is not None and known.role is Role.STORE:
            return STORE_GRACE
        return float(self.spec.termination_grace_period_seconds)

    def stop(self, uid: str, reason: str, *, kill: bool = False) -> Self:
        """With the stop of a process decided, unless it is already."""
        if uid in self.memory.stopping:
            return self
        grace = 0.0 if kill else self.grace(uid)
        return self.remember(stopping={**self.memory.stopping, uid: Stop(self.now, reason, grace)})

    def next_round(self) -> Self:
        """With a new rendezvous: agents of the old one leave, new ones come when they are gone."""
        return self.remember(
            round=self.memory.round + 1,
            round_used=False,
            nodes_min=self.spec.nodes.min,
            nodes_max=self.spec.nodes.max,
            finishing_since=None,
            finished=(),
            short_since=None,
        )

    def end(self, phase: JobPhase, reason: str, message: str, code: ExitCode) -> Self:
        """With the job ended, unless it has already."""
        if self.memory.outcome is not None:
            return self
        return self.remember(outcome=Outcome(phase, reason, message, int(code), self.now))

    def fail(self, reason: str, message: str, code: ExitCode = ExitCode.RUN_FAILED) -> Self:
        """With the job failed, unless it has ended already."""
        return self.end(JobPhase.FAILED, reason, message, code)
