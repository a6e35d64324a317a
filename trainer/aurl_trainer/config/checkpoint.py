"""Where and how often the training state is saved, and what is kept.

Not here: the format (the rooms `store/` and `checkpoint/`).
"""

from __future__ import annotations

from pydantic import Field

from aurl_trainer.config.base import Config


class KeepConfig(Config):
    """Retention: a checkpoint goes when no rule keeps it."""

    latest: int = Field(default=3, ge=1)
    """The newest N."""
    best: int = Field(default=1, ge=0)
    """The N with the lowest validation NLL."""


class CheckpointConfig(Config):
    """Saving."""

    uri: str | None = None
    """fsspec URL of the run's checkpoints, as in `gs://bucket/run`; the job's `checkpoint.uri` sets it."""
    every: int = Field(default=100, ge=1)
    """Steps between saves."""
    keep: KeepConfig = KeepConfig()
    compression: int = Field(default=3, ge=0, le=19)
    """zstd level; 0: off."""
