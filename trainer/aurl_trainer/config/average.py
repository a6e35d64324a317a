"""Averaged weights, kept beside the model's own.

Not here: the averaging (engine/state/), averages of whole checkpoints (`aurl checkpoints average`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aurl_trainer.config.base import Config


class AverageConfig(Config):
    """Which average of the weights over the steps is kept."""

    kind: Literal["none", "ema", "swa"] = "none"
    """ema: recent weights count most. swa: all count alike, from `start` on."""
    decay: float = Field(default=0.999, gt=0, lt=1)
    """Of ema: the share of the average that stays at each update."""
    start: int = Field(default=0, ge=0)
    """Steps before the first update."""
    every: int = Field(default=1, ge=1)
    """Steps between updates."""
    use: bool = True
    """Validate and sample with the averaged weights once they have begun; false: with the model's own."""
