"""Where and how often the training state is saved, and what is kept.

Not here: the format (the rooms `store/` and `checkpoint/`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from aurl_trainer.config.base import Config
from aurl_trainer.config.reference import BEST_BY


class KeepConfig(Config):
    """Retention: a checkpoint goes when no rule keeps it. Those with a tag always stay."""

    latest: int = Field(default=3, ge=1)
    """The newest N."""
    best: int = Field(default=1, ge=0)
    """The N best by `by`."""
    by: dict[Annotated[str, Field(min_length=1, max_length=128)], float] = Field(
        default={BEST_BY: 1.0}, min_length=1, max_length=32
    )
    """What is best: metrics and their weights; the lowest weighted sum wins, so a metric of which more is
    better has a negative weight. A checkpoint that lacks one of them is not rated."""
    every_steps: int | None = Field(default=None, ge=1)
    """The first save at or after each multiple of so many steps."""
    every_minutes: int | None = Field(default=None, ge=1)
    """The first save in each span of so many minutes."""
    grace_seconds: int = Field(default=60, ge=0)
    """What was kept so many seconds ago stays: whoever began to read it then can finish."""

    @field_validator("by")
    @classmethod
    def _weighs_something(cls, value: dict[str, float]) -> dict[str, float]:
        if not all(value.values()):
            raise ValueError("a weight of 0 weighs nothing: leave that metric out")
        return value


class PeersConfig(Config):
    """Copies of a node's own packs on its disk, so that a new world need not read them from the store.

    Read by the node itself and by its peers, and checked as what the store gives. Where checkpoints go to a
    local disk, which is as near, none are kept.
    """

    enabled: bool = True
    most_gib: float = Field(default=8.0, gt=0)
    """GiB of a node's disk for copies, the newest packs; less where the disk is fuller."""


class CheckpointConfig(Config):
    """Saving."""

    uri: str | None = None
    """fsspec URL of the run's checkpoints, as in `gs://bucket/run`; the job's `checkpoint.uri` sets it."""
    take_over: bool = False
    """Begin at `uri` even if another run is training there, which then cannot save any more."""
    every: int = Field(default=100, ge=1)
    """Steps between saves."""
    keep: KeepConfig = KeepConfig()
    peers: PeersConfig = PeersConfig()
    compression: int = Field(default=3, ge=0, le=19)
    """zstd level; 0: off. What a sample shows not to shrink is stored as it is."""
    busy: Literal["wait", "skip"] = "wait"
    """What a save does when the one before is still under way: training waits for that, or this one is left
    out. The last save of a run and that of a new best always wait. While old checkpoints are still removed
    after the one before, a save is left out as well, or written later; training does not wait for that."""
    deadline: float = Field(default=1800.0, gt=0)
    """Seconds from a save's copy to its commit, after which it counts as failed and its uploads end."""
    uploads: int = Field(default=4, ge=1, le=64)
    """Objects that a rank writes at the same time, where the store is not a local disk."""
    whole_every: int = Field(default=20, ge=1)
    """Saves after which unchanged tensors are written again, not referred to; 1: each save is whole. At most
    `keep.latest` less one where that is 2 or more, so that the newest N never all depend on one object: every
    second save is whole with the 3 that are kept unless set, and each with 2."""
