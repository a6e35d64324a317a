"""The part `status` of a job: what people and tools read about it. Written by the core, whole, each time.

Not here: what the operator must remember (core/memory.py); nothing is decided from these fields.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from aurl_operator.api.base import ApiModel

MAX_INCIDENTS = 20
MAX_MEMORY = 262_144
"""Characters."""


class JobPhase(StrEnum):
    """Where a job stands. `Succeeded` and `Failed` are the ends."""

    PENDING = "Pending"
    """Nothing runs yet: the condition Waiting says what for."""
    STARTING = "Starting"
    """Nodes are being started; fewer than `nodes.min` are ready."""
    RUNNING = "Running"
    """At least `nodes.min` are ready."""
    RECOVERING = "Recovering"
    """It ran before, and fewer than `nodes.min` are ready since an incident."""
    SUSPENDING = "Suspending"
    """Nodes save and leave."""
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DELETING = "Deleting"


class StatusModel(ApiModel):
    """Statuses may come from a newer operator: unknown fields are passed over."""

    model_config = ConfigDict(extra="ignore", strict=False)


class Condition(StatusModel):
    """A standard Kubernetes condition."""

    type: Annotated[str, Field(max_length=64)]
    """Ready, Waiting, Degraded, Suspended, Succeeded, Failed; while the operator cannot work the job
    InvalidSpec, NewerOperator or OperatorError; MemoryRebuilt."""
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(max_length=128)]
    """One word: why."""
    message: Annotated[str, Field(max_length=4096)] = ""
    last_transition_time: str
    """When `status` last changed, RFC 3339."""
    observed_generation: int | None = None


class NodesStatus(StatusModel):
    """Nodes now."""

    desired: int = 0
    ready: int = 0


class ProgressStatus(StatusModel):
    """How far training is."""

    step: int
    total: int
    loss: float | None = None
    val_loss: float | None = None
    music: dict[str, float] = Field(default_factory=dict)
    tokens_per_second: float | None = None
    eta_seconds: float | None = None


class CheckpointStatus(StatusModel):
    """What a restart would go on from."""

    last_durable_step: int | None = None
    last_durable_name: str | None = None
    """Name of that step's checkpoint."""
    resumed_from: int | None = None
    """Step that the newest generation went on from."""
    damaged: Annotated[list[str], Field(max_length=8)] = Field(default_factory=list)
    """Names of checkpoints that were found damaged and passed over, the newest last."""


class IncidentStatus(StatusModel):
    """One loss: what, when, whom, and what it cost; or what ranks noticed, which ends no node."""

    id: str
    cause: str
    at: str
    nodes: list[str] = Field(default_factory=list)
    """The first twenty."""
    unnamed: int | None = None
    """How many more there were."""
    message: Annotated[str, Field(max_length=1024)] = ""
    traceback: Annotated[str, Field(max_length=2048)] | None = None
    """Of the first failing rank, its end."""
    step: int | None = None
    recovery_seconds: float | None = None
    """From the loss to the next finished step."""
    lost_seconds: float | None = None
    """From the loss to the first step that had not been done before."""
    steps_redone: int | None = None


class Goodput(StatusModel):
    """Seconds of steps that are in the result, over seconds since the first node was ready."""

    ratio: float | None = None
    """Absent until it can be known."""
    lost_seconds: dict[str, float] = Field(default_factory=dict)
    """Seconds by cause, of incidents that are over."""


class JobStatus(StatusModel):
    """All of a job's status."""

    phase: JobPhase = JobPhase.PENDING
    message: Annotated[str, Field(max_length=1024)] = ""
    """The phase in one line: what is waited for, or why it ended."""
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(default_factory=list)
    nodes: NodesStatus = NodesStatus()
    progress: ProgressStatus | None = None
    checkpoint: CheckpointStatus = CheckpointStatus()
    restarts: dict[str, int] = Field(default_factory=dict)
    """Incidents so far by cause."""
    incidents: Annotated[list[IncidentStatus], Field(max_length=MAX_INCIDENTS)] = Field(default_factory=list)
    """The newest ones, oldest first."""
    goodput: Goodput = Goodput()
    observed_generation: int | None = None
    selector: str | None = None
    """Of the job's pods, for the scale subresource."""
    start_time: str | None = None
    completion_time: str | None = None
    exit_code: int | None = None
    """Of `aurl run` for this end (contract.ExitCode); absent while it goes on."""
    memory: Annotated[str, Field(max_length=MAX_MEMORY)] | None = None
    """What the operator remembers between two looks, as JSON; not for people."""
