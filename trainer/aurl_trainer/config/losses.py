"""What is minimised."""

from __future__ import annotations

from pydantic import Field

from aurl_trainer.config.base import Config


class LossConfig(Config):
    """Weights of the terms of the loss."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of probability given to all tokens alike (Szegedy et al. 2015, arXiv:1512.00567)."""
    z_loss: float = Field(default=0.0, ge=0)
    """Weight of the squared log-partition (PaLM, arXiv:2204.02311); 0: off."""
