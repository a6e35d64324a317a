"""One optimizer step over a global batch, whatever the world size.

The loss of a logical shard is a sum over tokens divided by the global count, so the shards' gradients add up
to that of the whole batch: by DDP, or to the same bits in every world (exact/). Not here: what happens
between steps (trainer.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aurl_trainer.config.engine import OptimizerConfig
from aurl_trainer.contract import Phase
from aurl_trainer.data.batches import BatchPlan, MicroBatch, Samples, global_tokens, micro_batches
from aurl_trainer.engine.exact.gradients import ExactGradients
from aurl_trainer.engine.optimizer import learning_rate, set_learning_rate
from aurl_trainer.engine.parallel import World, synchronised
from aurl_trainer.engine.precision import Precision
from aurl_trainer.engine.randomness import seed_all
from aurl_trainer.errors import DivergedError
from aurl_trainer.losses.framework import ComprehensiveLossFramework


@dataclass(frozen=True)
class StepResult:
    """What one step did on this rank.

    `losses` are the parts of the mean NLL, nats per token, that this rank's shards contribute: those of all
    ranks add up to it. `tokens` counts the global batch's targets; `ids` are the samples that this rank used.
    """

    losses: list[float]
    gradient_norm: float
    learning_rate: float
    tokens: int
    ids: list[int]


@dataclass(frozen=True)
class TrainingStep:
    """What a step needs; `model` may be wrapped in DDP, unless gradients are summed by `exact`."""

    model: nn.Module
    loss: ComprehensiveLossFramework
    optimizer: torch.optim.Optimizer
    precision: Precision
    dataset: Samples
    plan: BatchPlan
    world: World
    schedule: OptimizerConfig
    steps: int
    seed: int
    exact: ExactGradients | None = None

    def run(self, step: int, phase: Callable[[Phase, int], None]) -> StepResult:
        """Do step `step` (0-based). Raises DivergedError when the gradient is not finite at any scale."""
        rate = learning_rate(self.schedule, step, self.steps)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        denominator = global_tokens(self.dataset, self.plan, step)
        batches = list(micro_batches(self.dataset, self.plan, step, self.world.rank, self.world.size))

        def backward(
            batch: MicroBatch, weight: float = 1.0, wait: Callable[[], None] | None = None
        ) -> Tensor:
            seed_all(self.seed, step, batch.shard)
            with self.precision.forward():
                logits = self.model(batch.inputs.to(self.world.device))
                losses = self.loss(logits, batch.targets.to(self.world.device), denominator)
            if wait is not None:
                wait()
            self.precision.backward(losses.total * weight)
            return losses.terms["nll"]

        if self.exact is not None:
            parts = self.exact.collect(step, batches, backward, phase)
        else:
            parts = self._average(step, batches, backward, phase)
        losses = torch.stack(parts).tolist() if parts else []
        norm = self.precision.step(self.optimizer, self.schedule.clip_norm)
        if (norm != norm or norm == float("inf")) and not self.precision.absorbs_overflow:
            raise DivergedError(
                f"step {step}: the gradient is not finite; lower engine.optimizer.learning_rate "
                "or use precision bf16 or fp32"
            )
        ids = [i for batch in batches for i in batch.ids.tolist()]
        return StepResult(losses, norm, rate, denominator, ids)

    def _average(
        self,
        step: int,
        batches: Sequence[MicroBatch],
        backward: Callable[..., Tensor],
        phase: Callable[[Phase, int], None],
    ) -> list[Tensor]:
        """Every micro-batch in turn, padding too; DDP reduces in the last backward pass."""
        parts = []

        def wait() -> None:
            phase(Phase.SYNC, step)

        for batch in batches:
            last = batch is batches[-1]
            # A sign of life: the fewer ranks are left, the more of these each has, and the longer a step.
            phase(Phase.STEP, step)
            with synchronised(self.model, last):
                # DDP averages over ranks where the sum over all tokens is wanted.
                part = backward(batch, batch.weight * self.world.size, wait if last else None)
            if batch.weight:
                parts.append(part)
        return parts
