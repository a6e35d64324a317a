"""One optimizer step over a global batch, whatever the world size.

Every rank runs equally many micro-steps over logical shards; the loss is a sum over tokens divided by the
global count, so the gradient is that of the whole batch. Not here: what happens between steps (trainer.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from aurl_trainer.config.engine import OptimizerConfig
from aurl_trainer.contract import Phase
from aurl_trainer.data.batches import BatchPlan, Samples, global_tokens, micro_batches
from aurl_trainer.engine.optimizer import learning_rate, set_learning_rate
from aurl_trainer.engine.parallel import World, synchronised
from aurl_trainer.engine.precision import Precision
from aurl_trainer.engine.randomness import seed_all
from aurl_trainer.errors import DivergedError
from aurl_trainer.losses.framework import ComprehensiveLossFramework


@dataclass(frozen=True)
class StepResult:
    """What one step did on this rank.

    `loss` is this rank's share of the mean NLL in nats per token: the shares of all ranks add up to it.
    `tokens` counts the global batch's targets; `ids` are the samples that this rank used.
    """

    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    ids: list[int]


@dataclass(frozen=True)
class TrainingStep:
    """What a step needs; `model` may be wrapped in DDP."""

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

    def run(self, step: int, phase: Callable[[Phase, int], None]) -> StepResult:
        """Do step `step` (0-based). Raises DivergedError when the gradient is not finite."""
        rate = learning_rate(self.schedule, step, self.steps)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        denominator = global_tokens(self.dataset, self.plan, step)
        batches = list(micro_batches(self.dataset, self.plan, step, self.world.rank, self.world.size))
        share = torch.zeros((), device=self.world.device)
        ids: list[int] = []
        for number, batch in enumerate(batches):
            seed_all(self.seed, step, batch.shard)
            inputs = batch.inputs.to(self.world.device)
            targets = batch.targets.to(self.world.device)
            last = number == len(batches) - 1
            with synchronised(self.model, last):
                with self.precision.forward():
                    losses = self.loss(self.model(inputs), targets, denominator)
                if last:
                    phase(Phase.SYNC, step)
                # DDP averages over ranks where the sum over all tokens is wanted.
                self.precision.backward(losses.total * (batch.weight * self.world.size))
            if batch.weight:
                share = share + losses.terms["nll"].detach()
                ids.extend(batch.ids.tolist())
        norm = self.precision.step(self.optimizer, self.schedule.clip_norm)
        if (norm != norm or norm == float("inf")) and not self.precision.skips_overflow:
            raise DivergedError(
                f"step {step}: the gradient is not finite; lower engine.optimizer.learning_rate "
                "or use precision bf16 or fp32"
            )
        return StepResult(float(share), norm, rate, denominator, ids)
