"""The part `recovery` of a job: how often it may come back from what, and how long it waits before.

Not here: how causes are told apart and when a budget is charged (core/policies/recovery.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from aurl_operator.api.base import ApiModel, Seconds, Text
from aurl_trainer.contract import DEFAULT_HANG_LIMITS, Phase


class Backoff(ApiModel):
    """Wait before the n-th restart in a row: `initialSeconds * factor^(n-1)`, at most `maxSeconds`.

    Up to a fifth of it is taken off at random, so that many jobs do not come back in the same instant.
    """

    initial_seconds: Seconds = 5
    factor: Annotated[float, Field(ge=1, le=10, strict=False)] = 2.0
    max_seconds: Seconds = 300


class QuickBackoff(Backoff):
    """For losses that are nobody's fault: come back at once, then a little slower."""

    initial_seconds: Seconds = 1
    max_seconds: Seconds = 60


Limit = Annotated[int, Field(ge=0, le=1_000_000)]
"""Restarts allowed: the incident after that many ends the job as Failed. A million is as good as no limit."""


class Budget(ApiModel):
    """How many incidents of one kind a job comes back from."""

    refill: Literal["Progress", "Never"] = "Progress"
    """`Progress`: the count starts anew with each checkpoint further than any before, so only incidents
    without progress between them use the budget up. `Never`: counts over the whole run. A `command` job
    reports no checkpoints, so its budgets are never refilled."""


class LossBudget(Budget):
    """A budget for losses of machines."""

    limit: Limit | None = None
    """Restarts allowed; absent: no limit."""
    backoff: QuickBackoff = QuickBackoff()


class CrashBudget(Budget):
    """A budget for crashes."""

    limit: Limit = 3
    """Restarts allowed: one more crash than that ends the job as Failed."""
    backoff: Backoff = Backoff()


class MemoryBudget(Budget):
    """A budget for exhausted memory."""

    limit: Limit = 2
    """Restarts allowed: one more than that ends the job as Failed."""
    backoff: Backoff = Backoff()


class HangLimits(ApiModel):
    """Seconds without progress in one phase before a rank counts as hung; absent: the trainer's default."""

    start: Annotated[int, Field(ge=1, le=604800)] | None = None
    compile: Annotated[int, Field(ge=1, le=604800)] | None = None
    load: Annotated[int, Field(ge=1, le=604800)] | None = None
    step: Annotated[int, Field(ge=1, le=604800)] | None = None
    sync: Annotated[int, Field(ge=1, le=604800)] | None = None
    evaluate: Annotated[int, Field(ge=1, le=604800)] | None = None
    save: Annotated[int, Field(ge=1, le=604800)] | None = None
    end: Annotated[int, Field(ge=1, le=604800)] | None = None

    def seconds(self) -> dict[Phase, float]:
        """The limit of every phase, seconds: what AURL_HANG_LIMITS carries."""
        given = {Phase(name): float(value) for name, value in self.model_dump(exclude_none=True).items()}
        return {**DEFAULT_HANG_LIMITS, **given}


class HangBudget(Budget):
    """A budget for hangs, and what counts as one."""

    limit: Limit = 3
    """Restarts allowed: one more hang than that ends the job as Failed."""
    backoff: Backoff = Backoff()
    limits: HangLimits = HangLimits()


class ExitCodeRule(ApiModel):
    """What an exit code of a training process (or of its node) means."""

    exit_codes: Annotated[list[Annotated[int, Field(ge=1, le=255)]], Field(min_length=1, max_length=32)]
    cause: Literal["FinalError", "Crash", "Preempted", "NodeLost", "OutOfMemory", "Hang"]
    """`FinalError` fails the job at once; the others charge their budget."""
    message: Text = ""
    """Shown with the incident."""


class Recovery(ApiModel):
    """What a job comes back from. A preemption is never a failure: each cause has its own budget."""

    preemptions: LossBudget = LossBudget()
    """Nodes preempted, evicted, drained, or deleted by somebody."""
    node_lost: LossBudget = LossBudget()
    """Nodes, or the rendezvous store, that vanished with their machine; nodes that cannot reach the store."""
    crashes: CrashBudget = CrashBudget()
    """Training processes, or the rendezvous store, that failed by themselves."""
    hang: HangBudget = HangBudget()
    """Ranks that made no progress within their phase's limit."""
    out_of_memory: MemoryBudget = MemoryBudget()
    """Nodes on which memory was exhausted."""
    rules: Annotated[list[ExitCodeRule], Field(max_length=32)] = Field(default_factory=list)
    """Meaning of exit codes; the first rule that names a code decides."""

    @model_validator(mode="after")
    def _codes_once(self) -> Recovery:
        seen: set[int] = set()
        for rule in self.rules:
            twice = seen.intersection(rule.exit_codes)
            if twice:
                raise ValueError(f"rules: exit code {min(twice)} is named by two rules; keep one")
            seen.update(rule.exit_codes)
        return self
