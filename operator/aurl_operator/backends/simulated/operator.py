"""The operator over a simulated world: observe, reconcile, persist, deliver, act. It can die at any point.

What a real backend keeps on disk or in the API server is kept here in two values that survive the operator:
the persisted memory (as JSON, so its round trip is used all the time) and the ledger.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.backends.simulated.world import World
from aurl_operator.core.memory import Memory
from aurl_operator.core.observed import CLUSTER, Capabilities, Observed
from aurl_operator.core.plan import Action, DeleteJob, Plan, Release, Remove, Start, Stop
from aurl_operator.core.reconcile import reconcile
from aurl_trainer.contract import LedgerEntry


class OperatorKilledError(Exception):
    """The operator died where the simulation wanted it to."""


@dataclass
class Operator:
    """One job's operator. `job`, `suspended` and `deleting` may be changed between looks."""

    world: World
    job: AurlTrainingJob
    capabilities: Capabilities = CLUSTER
    run_id: str = "run"
    suspended: bool = False
    deleting: bool = False
    persisted: str = field(default_factory=lambda: Memory().to_json())
    ledger: list[LedgerEntry] = field(default_factory=list)
    released: bool = False
    plan: Plan | None = None
    deeds: int = 0
    """Side effects so far."""
    die_at: int | None = None
    """Die before the side effect of this number."""
    reached_since: float | None = None
    """Since when this life can reach the nodes."""
    _memory: Memory | None = None

    def observe(self) -> Observed:
        """What a backend would hand to the core now."""
        processes, progress, refusals = self.world.look()
        if self.reached_since is None:
            self.reached_since = self.world.now
        return Observed(
            now=self.world.now,
            job=self.job,
            run_id=self.run_id,
            memory=self.memory,
            processes=processes,
            progress=progress,
            reached_since=self.reached_since,
            refusals=refusals,
            suspended=self.suspended,
            deleting=self.deleting,
            capabilities=self.capabilities,
        )

    @property
    def memory(self) -> Memory:
        """The newest memory: of this life, or what the last one persisted."""
        return self._memory if self._memory is not None else Memory.from_json(self.persisted)

    def look(self, times: int = 1) -> Plan:
        """One round: observe, decide, carry out. More `times`: the same observation again and again.

        If the operator is to die on the way, it does, and its successor looks before this returns.
        """
        observed = self.observe()
        plan = self.plan
        for _ in range(times):
            plan = reconcile(dataclasses.replace(observed, memory=self.memory))
            try:
                self._carry_out(plan)
            except OperatorKilledError:
                self.restart()
                return self.look()
        assert plan is not None
        self.plan = plan
        return plan

    def restart(self) -> None:
        """A new life: only what was persisted is known; entries not yet in the ledger are written."""
        self.die_at = None
        self.reached_since = None
        self._memory = None
        for entry in self.memory.outbox:
            self._deliver(entry)

    def _carry_out(self, plan: Plan) -> None:
        if plan.urgent:
            self._deed()
            self.persisted = plan.memory.to_json()
        self._memory = plan.memory
        for entry in plan.ledger:
            self._deed()
            self._deliver(entry)
        for action in plan.actions:
            self._deed()
            self._act(action)

    def _deliver(self, entry: LedgerEntry) -> None:
        if not any((e.kind, e.id) == (entry.kind, entry.id) for e in self.ledger):
            self.ledger.append(entry)

    def _act(self, action: Action) -> None:
        match action:
            case Start():
                self.world.begin(action)
            case Stop(kill=True):
                self.world.kill(action.uid)
            case Stop():
                self.world.notify(action.uid, action.grace_seconds)
            case Remove():
                self.world.remove(action.uid)
            case DeleteJob():
                self.deleting = True
            case Release():
                self.released = True

    def _deed(self) -> None:
        if self.deeds == self.die_at:
            raise OperatorKilledError
        self.deeds += 1
