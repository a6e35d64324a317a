"""`AurlTrainingJob` v1alpha1: the one object a user writes, the same on a laptop and on a cluster.

Here: the object, its metadata and its spec. Its parts with rules of their own are in recovery.py and
status.py; reading one from a file, with the line of each problem, is load.py.

Code reads snake_case attributes (`job.spec.procs_per_node`); text, and Python that builds one, uses the
camelCase names (`JobSpec(procsPerNode=2)`). `training` is kept as written: aurl_trainer.config.experiment
resolves and validates it (load.py does so for files). Durations are whole seconds.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from aurl_operator.api.base import ApiModel, Name, Seconds
from aurl_operator.api.recovery import Recovery
from aurl_operator.api.status import JobStatus
from aurl_trainer.config.reference import Reference
from aurl_trainer.errors import ConfigError

API_VERSION = "aurl.dev/v1alpha1"
KIND = "AurlTrainingJob"
MAX_NODES = 1024


def _quantity(value: Any) -> Any:
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, str) and re.fullmatch(QUANTITY, value) and len(value) <= 64:
        return value
    raise ValueError(f"expected a quantity such as 2, 500m or 8Gi; found {value!r}")


def _reference(value: str) -> str:
    try:
        Reference.parse(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return value


QUANTITY = r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]+)?"
Quantity = Annotated[int | Annotated[str, Field(max_length=64)], BeforeValidator(_quantity)]
"""As Kubernetes writes amounts: a whole number, or text such as `500m` and `8Gi`."""

Labels = Annotated[
    dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]], Field(max_length=64)
]


class Nodes(ApiModel):
    """How many nodes train: a bare number, or a range within which the job grows and shrinks."""

    min: Annotated[int, Field(ge=1, le=MAX_NODES)]
    """Fewest nodes to train on; with fewer the job waits."""
    max: Annotated[int, Field(ge=1, le=MAX_NODES)]
    """Nodes to strive for."""

    @model_validator(mode="before")
    @classmethod
    def _bare_number(cls, value: Any) -> Any:
        if type(value) is int and 1 <= value <= MAX_NODES:
            return {"min": value, "max": value}
        if isinstance(value, dict | Nodes):
            return value
        raise ValueError(f"expected a number from 1 to {MAX_NODES}, or {{min, max}}; found {value!r}")

    @model_validator(mode="after")
    def _ordered(self) -> Nodes:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is more than max ({self.max})")
        return self


class Resources(ApiModel):
    """What each node asks for and may use, as in a pod. Local runs ignore it."""

    requests: Annotated[dict[Annotated[str, Field(max_length=253)], Quantity], Field(max_length=16)] = Field(
        default_factory=dict
    )
    limits: Annotated[dict[Annotated[str, Field(max_length=253)], Quantity], Field(max_length=16)] = Field(
        default_factory=dict
    )


Metric = Annotated[str, Field(min_length=1, max_length=128)]


class Keep(ApiModel):
    """Which checkpoints stay: those that any rule keeps, and those with a tag."""

    latest: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """The newest N."""
    best: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """The N best by `by`."""
    by: Annotated[dict[Metric, float], Field(min_length=1, max_length=32)] | None = None
    """What is best: metrics and their weights, the lowest weighted sum; a metric of which more is better has
    a negative weight. Absent: the validation NLL, `{val_nll: 1}`."""
    every_steps: Annotated[int, Field(ge=1)] | None = None
    """The first save at or after each multiple of so many steps."""
    every_minutes: Annotated[int, Field(ge=1, le=10 * 365 * 1440)] | None = None
    """The first save in each span of so many minutes."""
    grace_seconds: Seconds | None = None
    """What was kept so many seconds ago stays: whoever began to read it then can finish."""


class Checkpoint(ApiModel):
    """Where the training state is saved, how often, and what is kept. Absent fields: the experiment's."""

    uri: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    """fsspec URL, as in `s3://bucket/run`. Local runs default to their run directory."""
    secret: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Secret whose keys become environment variables of the nodes and the clean-up, and of nothing else."""
    every: Annotated[int, Field(ge=1)] | None = None
    """Steps between saves."""
    keep: Keep = Keep()


class Cleanup(ApiModel):
    """What goes when the job has ended or is deleted."""

    pods: Literal["None", "Running", "All"] = "Running"
    """Pods deleted when the job ends: none (`activeDeadlineSeconds` stops them all the same), those still
    running, or all (their logs go with them)."""
    ttl_seconds_after_finished: Seconds | None = None
    """Delete the job so long after it ended; absent: never."""
    checkpoints: Literal["Keep", "KeepBest", "Delete"] = "Keep"
    """What happens to checkpoints when the job is deleted."""


class Scheduling(ApiModel):
    """How nodes get machines. Local runs ignore it."""

    gang: Literal["None", "Volcano", "Kueue"] = "None"
    """All nodes at once or none, by this scheduler."""
    queue: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    priority_class: Annotated[str, Field(min_length=1, max_length=253)] | None = None


class JobSpec(ApiModel):
    """What to train, on what, and what to do when machines go."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Container image of the nodes. Absent: the operator's default. Local runs ignore it."""
    nodes: Nodes = Nodes(min=1, max=1)
    """How many nodes: a number, or `{min, max}`."""
    procs_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    """Training processes (ranks) on each node."""
    resources: Resources = Resources()
    training: dict[str, Any] | None = None
    """An experiment, or `{preset, overrides}`. Exactly one of `training` and `command`."""
    command: (
        Annotated[list[Annotated[str, Field(max_length=8192)]], Field(min_length=1, max_length=256)] | None
    ) = None
    """A script and its arguments as after torchrun's own options: `[train.py, --lr, "0.1"]`, or
    `[-m, package.module]`. It needs nothing of Aurl."""
    checkpoint: Checkpoint = Checkpoint()
    init_from: Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_reference)] | None = None
    """Checkpoint whose weights a `training` job begins with, as in `s3://bucket/other@best:val_nll`: a run's
    URL, or the name of one beside `checkpoint.uri`; after an @ latest, best, best:METRIC, step:1200, v12, or
    a tag. A job that has saved goes on from its own."""
    recovery: Recovery = Recovery()
    cleanup: Cleanup = Cleanup()
    active_deadline_seconds: Annotated[int, Field(ge=1, le=10 * 365 * 86400)] | None = None
    """The job fails when it has been active (not suspended) for so long, with everything saved."""
    start_timeout_seconds: Annotated[int, Field(ge=1, le=30 * 86400)] = 600
    """How long fewer than `nodes.min` may be ready before the job gives back what it holds and tries again
    later; a local run fails, since nothing will make room."""
    finish_timeout_seconds: Annotated[int, Field(ge=1, le=30 * 86400)] = 3600
    """How long the other nodes may go on after the first one has finished well."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86400)] = 60
    """Seconds a node gets to save between a notice and being killed; the rendezvous store waits as long."""
    suspend: bool = False
    """Save, give all nodes back, and wait until this is false again."""
    scheduling: Scheduling = Scheduling()
    service_account_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Identity of the nodes towards a cloud. Its token is not mounted unless the template asks for it."""
    template: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the nodes' pod template, merged as Kubernetes merges patches."""

    @model_validator(mode="after")
    def _one_program(self) -> JobSpec:
        if (self.training is None) == (self.command is None):
            raise ValueError("name exactly one of training and command")
        if self.command is not None and self.init_from is not None:
            raise ValueError("initFrom goes with training; a command loads its own checkpoints")
        return self


class Metadata(ApiModel):
    """The object's metadata: a user writes `name`, the API server adds the rest."""

    name: Name
    namespace: Name | None = None
    labels: Labels = Field(default_factory=dict)
    annotations: Annotated[dict[str, str], Field(max_length=256)] = Field(default_factory=dict)
    uid: Annotated[str, Field(max_length=64)] | None = None
    generation: int | None = None
    resource_version: str | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: list[str] = Field(default_factory=list)
    owner_references: list[dict[str, Any]] = Field(default_factory=list)
    managed_fields: list[dict[str, Any]] = Field(default_factory=list)
    generate_name: str | None = None
    self_link: str | None = None


class AurlTrainingJob(ApiModel):
    """A training job that survives the loss of its machines."""

    api_version: Literal["aurl.dev/v1alpha1"]
    kind: Literal["AurlTrainingJob"]
    metadata: Metadata
    spec: JobSpec
    status: JobStatus | None = None
    """Written by the operator."""
