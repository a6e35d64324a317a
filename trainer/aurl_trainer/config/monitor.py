"""What is measured, evaluated and recorded while training runs."""

from __future__ import annotations

from pydantic import Field

from aurl_trainer.config.base import Config


class MonitorConfig(Config):
    """Intervals count optimizer steps; 0 turns a thing off."""

    log_every: int = Field(default=10, ge=1)
    """Steps between lines in the log. Every step is in the records."""
    evaluate_every: int = Field(default=100, ge=0)
    """Steps between validations (NLL per token over the held-out pieces)."""
    evaluate_samples: int | None = Field(default=None, ge=1)
    """Validate on the first so many held-out samples; default: all."""
    audit: bool = False
    """Record the sample ids that each rank used in each step."""


class SamplesConfig(Config):
    """Music sampled while training runs, and measured (music/metrics.py)."""

    every: int = Field(default=0, ge=0)
    """Steps between samplings; 0: only at the end. A checkpoint of the same step holds what they measure:
    `pitch_class_entropy`, `scale_consistency`, `polyphony`, `groove_consistency` and `empty_beat_rate`."""
    count: int = Field(default=4, ge=0, le=64)
    """Pieces per sampling; 0: none."""
    tokens: int = Field(default=512, ge=16)
    """Longest length of a piece, tokens."""
    temperature: float = Field(default=1.0, gt=0)
    top_k: int | None = Field(default=None, ge=1)
    top_p: float | None = Field(default=0.95, gt=0, le=1)
