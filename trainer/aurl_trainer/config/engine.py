"""How training runs: steps, batches, optimizer, precision, parallelism, hang limits.

Not here: how often it is saved (checkpoint.py) or looked at (monitor.py).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from aurl_trainer.config.average import AverageConfig
from aurl_trainer.config.base import Config


class OptimizerConfig(Config):
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: float = Field(default=3e-4, gt=0)
    """Peak, reached at the end of the warm-up."""
    warmup_steps: int = Field(default=100, ge=0)
    final_fraction: float = Field(default=0.1, ge=0, le=1)
    """Learning rate at the last step, as a share of the peak."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.1, ge=0)
    """Applied to matrices only, not to norms and biases."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Largest norm of the global gradient; null: not clipped."""


class BatchConfig(Config):
    """Batches are counted in samples of `data.sequence_length` tokens, whatever the world size."""

    global_batch: int = Field(default=32, ge=1)
    """Samples per optimizer step."""
    shards: int = Field(default=4, ge=1)
    """Logical shards of a global batch: the micro-batches. Fixed at a run's first start."""

    @model_validator(mode="after")
    def _shards_divide(self) -> BatchConfig:
        if self.global_batch % self.shards:
            raise ValueError(
                f"global_batch ({self.global_batch}) must be a multiple of shards ({self.shards})"
            )
        return self


class EngineConfig(Config):
    """The loop."""

    steps: int = Field(default=1000, ge=1)
    """Optimizer steps in all."""
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    average: AverageConfig = AverageConfig()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Autocast type of the forward pass; weights stay fp32. fp16 adds a gradient scaler (CUDA only).

    Its scaler skips steps whose gradient overflows. A run for which it finds no scale ends as diverged."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    """CPU threads per rank; default: what OMP_NUM_THREADS says, else torch's choice."""
    deterministic: bool = True
    """Only deterministic kernels, so that a resume on like machines is bit-exact."""
    reproducibility: Literal["world", "exact"] = "world"
    """world: the same result, to the bit, while the world size stays. exact: whatever the world size, at a
    cost in time and memory (docs/reproducibility.md); needs `threads`. Fixed at a run's first start."""

    @model_validator(mode="after")
    def _exact_is_possible(self) -> EngineConfig:
        if self.reproducibility == "exact":
            wrong = []
            if self.threads is None:
                wrong.append("threads must be given, for example threads: 1, as their number decides bits")
            if self.precision == "fp16":
                wrong.append("precision fp16 is not possible, as its scaler skips steps; use bf16 or fp32")
            if not self.deterministic:
                wrong.append("deterministic must be true")
            if wrong:
                raise ValueError("with reproducibility: exact, " + "; ".join(wrong))
        return self
