"""What a backend sees of one job at one instant, handed to `reconcile`.

How a backend fills it:
- `processes` holds every process (cluster: pod) of the job that exists, ended ones included until they are
  removed, and everything this backend started in its own life (read your writes: a start that returned is in
  the next observation). Right after its own start a backend lists everything before its first observation.
- A process belongs to `(role, index, attempt, round)` exactly as `Start` named it: keep these with the
  process (labels; a small file). `uid` is unique for ever, also among attempts.
- A start that was refused (quota, no such program) is a `Refusal` in the next observations, until it is
  tried again. It carries the `metadata.generation` and the `resume` under which it came: it says nothing of a
  job that was changed since, or is to try again.
- `end` gives facts, not conclusions: accounts/causes.py concludes. Facts once given for a UID do not change.
- `stopping_since` is when SIGTERM (cluster: a deletion) was sent to the process by anyone; None: not yet.
- `notice` is an announcement by the machine's owner that it will go (spot notice, cordon): not our own stop.
- `ready`: the node's agent answers; where this cannot be known, the process runs. For the store: it accepts
  connections.
- `progress` is the newest answer whose `rank` is 0, of any node, and may be old or None. Never invent one.
- `reached_since` is since when this backend, in its present life, could ask the nodes without a gap: one took
  the connection, whether it answered or not. None while it cannot.
- `memory` is what the last plan said, unchanged.

Not here: how a backend acts (plan.py). Frozen values only; no clock: `now` is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from aurl_operator.api.spec import AurlTrainingJob
from aurl_trainer.contract import Progress, Termination

if TYPE_CHECKING:
    from aurl_operator.core.memory import Memory


class Role(StrEnum):
    """What a process is for."""

    NODE = "node"
    """An agent and its ranks: `worker-<index>-<attempt>`."""
    STORE = "store"
    """The rendezvous store, index 0: `store-0-<attempt>`."""
    CLEANER = "cleaner"
    """Deletes checkpoints of a deleted job, index 0."""


class State(StrEnum):
    """Where a process is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class WaitingReason(StrEnum):
    """Why a process does not run yet. The job's condition Waiting carries these words."""

    STARTING = "Starting"
    QUOTA = "Quota"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE = "ImagePull"
    VOLUME = "Volume"
    INIT = "InitContainer"
    """What has to be done before ours ends, and is started again and again."""
    GATED = "Gated"
    REFUSED = "Refused"
    """The start itself was refused; the message has the words."""


@dataclass(frozen=True)
class Waiting:
    """Why a process waits. `final`: it can never run (invalid image name): the job fails with `message`."""

    reason: WaitingReason
    message: str = ""
    final: bool = False


@dataclass(frozen=True)
class Notice:
    """The machine will go. `deadline` is when, if that is known."""

    at: float
    message: str = ""
    deadline: float | None = None


@dataclass(frozen=True)
class End:
    """How a process ended: facts only.

    A process killed by a signal has `signal` set, or an `exit_code` of 128 + signal; both None: not known.
    """

    at: float
    exit_code: int | None = None
    signal: int | None = None
    termination: Termination | None = None
    """What its agent wrote last."""
    deleted: bool = False
    """Somebody asked for its end (deletion of the pod) before it came."""
    disrupted: bool = False
    """Condition DisruptionTarget by preemption, eviction, drain or taint; a spot notice came true."""
    node_lost: bool = False
    """Its machine went silent or is gone."""
    oom_killed: bool = False
    """The kernel or the container runtime says memory was exhausted."""
    final: bool = False
    """It can never work (no such program, image that cannot start): trying again is useless."""
    message: str = ""


@dataclass(frozen=True)
class Process:
    """One agent, store or cleaner. Ended exactly when `end` is given."""

    role: Role
    uid: str
    name: str
    index: int
    attempt: int
    round: int
    state: State
    ready: bool = False
    since: float | None = None
    """When it began to run."""
    waiting: Waiting | None = None
    notice: Notice | None = None
    stopping_since: float | None = None
    address: str | None = None
    """`host:port` of a store, as soon as it is known, even before it is ready."""
    end: End | None = None
    lingers: bool = False
    """It has ended and yet holds its place on a machine: another container of its pod still runs."""

    def __post_init__(self) -> None:
        if (self.state is State.ENDED) != (self.end is not None):
            raise ValueError(f"{self.name}: state {self.state} and end {self.end} contradict each other")

    @property
    def stopping(self) -> bool:
        """Whether it has been told to go."""
        return self.stopping_since is not None


@dataclass(frozen=True)
class Refusal:
    """A start that was refused: nothing of it exists."""

    role: Role
    index: int
    attempt: int
    waiting: Waiting
    at: float
    generation: int | None = None
    resume: str | None = None


@dataclass(frozen=True)
class Capabilities:
    """What is true of a backend, not of a job."""

    start_timeout_final: bool = False
    """Nothing will make room later (one machine), so a start time-out ends the job instead of waiting."""
    removes_jobs: bool = True
    """Jobs are objects that can be deleted: time to live and checkpoint clean-up apply."""


LOCAL = Capabilities(start_timeout_final=True, removes_jobs=False)
"""Processes on one machine."""

CLUSTER = Capabilities()
"""Pods."""


@dataclass(frozen=True)
class Observed:
    """One job at one instant. `now` never runs backwards by more than clocks do."""

    now: float
    job: AurlTrainingJob
    run_id: str
    """Identity of the run: the object's UID, or the local run's id."""
    memory: Memory
    processes: tuple[Process, ...] = ()
    progress: Progress | None = None
    reached_since: float | None = None
    refusals: tuple[Refusal, ...] = ()
    suspended: bool = False
    """Ctrl-C, or a queue that holds the job back; `spec.suspend` counts besides."""
    deleting: bool = False
    """The job object is being deleted."""
    resume: str | None = None
    """A token that asks for a failed job to try again; each one counts once."""
    capabilities: Capabilities = CLUSTER
