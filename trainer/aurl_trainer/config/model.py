"""The shape of the network.

Not here: the vocabulary's size, which the tokenizer tells.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from aurl_trainer.config.base import Config


class ModelConfig(Config):
    """A decoder-only transformer; `vae` and `vae_gan` are refused by this version."""

    mode: Literal["transformer", "vae", "vae_gan"] = "transformer"
    """Which member of the family."""
    dim: int = Field(default=256, ge=16, le=16384)
    """Width of the residual stream."""
    layers: int = Field(default=6, ge=1, le=256)
    heads: int = Field(default=8, ge=1, le=256)
    feedforward: int | None = Field(default=None, ge=16)
    """Width of the feed-forward layers; default: four times `dim`."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    rope_base: float = Field(default=10_000.0, gt=1)
    """Base of the rotary position angles (Su et al. 2021, arXiv:2104.09864)."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelConfig:
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise ValueError(f"dim ({self.dim}) must be an even multiple of heads ({self.heads})")
        return self
