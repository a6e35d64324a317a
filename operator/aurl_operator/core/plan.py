"""What `reconcile` wants done about one job.

How a backend carries a plan out, in this order:
1. If `plan.urgent`, persist `plan.memory`: a temporary file renamed, or one status patch together with
   `plan.status`; where room is limited, made to fit (fitting.py). Nothing else may happen before that has
   succeeded. Not urgent means that only marks of progress have moved: persisting now and then is enough, but
   the next `reconcile` gets the new memory, as it was persisted.
   A plan that `can_wait` may be dropped whole, for a second at most, since what comes next often needs a
   write as well: the next `reconcile` gets the memory from before it.
2. Append the entries of `plan.ledger` to the ledger, leaving out any whose `(kind, id)` it already holds.
   They are also `plan.memory.outbox`: after its own start a backend writes `memory.outbox` this way before
   its first observation. So each entry is returned once and written exactly once, whenever the backend dies.
   A backend that only ever writes some of them persists only those.
3. Do the actions, in any order:
   - `Start`: start this process. Planned once for each name; one that could not be done is reported as a
     `Refusal`. A name that exists already is known work: nothing to do. If the backend dies before it
     started the process, the number is passed over and another attempt gets the next one.
   - `Stop`: `kill` false: send SIGTERM (a notice), and SIGKILL after `grace_seconds`; true: SIGKILL now.
     Only the process with this very UID. Planned again until `stopping` or its end is seen.
   - `Remove`: forget an ended process and its remains (cluster: delete the pod; local: nothing need be
     done but to leave it out of the next observations). Planned again until it is not seen any more.
   - `DeleteJob`, `Release`: cluster only (time to live is over; let the finalizer go).
4. Observe again when something changes, and after `wake_after` seconds at the latest (None: only when
   something changes). While nodes run, poll their progress every second or so besides.

The job has ended when `plan.outcome` is given and no process lives; a local run then exits with
`plan.outcome.exit_code`. A suspended job has `status.phase` Suspended once nothing lives any more.
"""

from __future__ import annotations

from dataclasses import dataclass

from aurl_operator.api.status import JobStatus
from aurl_operator.core.memory import Memory, Outcome
from aurl_operator.core.observed import Role
from aurl_trainer.contract import LedgerEntry


@dataclass(frozen=True)
class Start:
    """Start a process.

    A node's agent gets `--nnodes=<nodes_min>:<nodes_max>`, `--rdzv-id=<rdzv_id>`, and `store` as endpoint;
    without a store (a job with `nodes.max` 1) it hosts its own. `name` has no job name in it.
    """

    role: Role
    index: int
    attempt: int
    round: int
    name: str
    rdzv_id: str
    nodes_min: int
    nodes_max: int
    store: str | None = None
    barred: tuple[str, ...] = ()
    """For a node: UIDs of nodes that were lost, which may come back and must neither join nor commit."""
    trained: bool = False
    """Whether any world of the job has trained: its checkpoint location has worked before."""
    keep_best: bool = False
    """For a cleaner: leave the best checkpoints."""


@dataclass(frozen=True)
class Stop:
    """End a process, with or without time to save. `reason` is for logs and people."""

    uid: str
    name: str
    kill: bool
    grace_seconds: float
    reason: str


@dataclass(frozen=True)
class Remove:
    """Remove what is left of an ended process. `grace_seconds`: for what may still run beside it."""

    uid: str
    name: str
    grace_seconds: float = 0.0


@dataclass(frozen=True)
class DeleteJob:
    """Delete the job object: its time to live is over."""


@dataclass(frozen=True)
class Release:
    """Let the deleted job go: nothing is left to be done for it."""

    message: str = ""


Action = Start | Stop | Remove | DeleteJob | Release


@dataclass(frozen=True)
class Plan:
    """What to persist, write, do, and when to look again."""

    memory: Memory
    status: JobStatus
    """Without its `memory` and `selector`, which are the cluster backend's to fill in."""
    ledger: tuple[LedgerEntry, ...] = ()
    actions: tuple[Action, ...] = ()
    wake_after: float | None = None
    urgent: bool = True
    """Something other than marks of progress has changed in the memory."""
    can_wait: bool = False
    """All that happened is that ordered processes arrived, or that words about waiting changed."""
    outcome: Outcome | None = None

    @property
    def starts(self) -> tuple[Start, ...]:
        """The starts among the actions."""
        return tuple(a for a in self.actions if isinstance(a, Start))

    @property
    def stops(self) -> tuple[Stop, ...]:
        """The stops among the actions."""
        return tuple(a for a in self.actions if isinstance(a, Stop))
