"""One step computes the gradient of the whole global batch, however it is cut, and repeats exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from aurl_trainer.config.engine import OptimizerConfig
from aurl_trainer.config.losses import LossConfig
from aurl_trainer.config.model import ModelConfig
from aurl_trainer.contract import Phase
from aurl_trainer.data.batches import BatchPlan
from aurl_trainer.engine.exact.gradients import ExactGradients
from aurl_trainer.engine.optimizer import build_optimizer
from aurl_trainer.engine.parallel import World
from aurl_trainer.engine.precision import Precision
from aurl_trainer.engine.step import TrainingStep
from aurl_trainer.errors import ConfigError, DivergedError
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from tests.unit.trainer.engine.corpus import Windows


def make(shards: int = 4, dropout: float = 0.0, rate: float = 1e-2, precision: str = "fp32") -> TrainingStep:
    torch.manual_seed(0)
    data = Windows()
    model = MusicTransformerVAEGAN(
        ModelConfig(dim=16, layers=2, heads=2, dropout=dropout), data.vocab, data.pad_id, data.sequence_length
    )
    schedule = OptimizerConfig(learning_rate=rate, warmup_steps=0, clip_norm=None)
    world = World.alone("cpu")
    return TrainingStep(
        model=model,
        loss=ComprehensiveLossFramework(LossConfig()),
        optimizer=build_optimizer(model, schedule),
        precision=Precision(precision, world.device),  # type: ignore[arg-type]
        dataset=data,
        plan=BatchPlan(len(data), 12, shards, seed=3),
        world=world,
        schedule=schedule,
        steps=50,
        seed=3,
    )


def quiet(phase: Phase, step: int) -> None:
    """Nobody listens."""


def weights(step: TrainingStep) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in step.model.parameters()])


def test_the_gradient_does_not_depend_on_the_number_of_shards() -> None:
    one, four = make(shards=1), make(shards=4)
    a, b = one.run(0, quiet), four.run(0, quiet)
    assert sum(a.losses) == pytest.approx(sum(b.losses), rel=1e-5)
    assert a.gradient_norm == pytest.approx(b.gradient_norm, rel=1e-4)
    assert a.tokens == b.tokens == int(one.dataset.targets[one.plan.sample_ids(0)].sum())
    assert sorted(a.ids) == sorted(b.ids)


def test_the_same_step_draws_the_same_dropout_whatever_came_before() -> None:
    first, second = make(dropout=0.5), make(dropout=0.5)
    torch.rand(100)
    first.run(7, quiet)
    second.run(7, quiet)
    assert torch.equal(weights(first), weights(second))
    third = make(dropout=0.5)
    replace(third, seed=4).run(7, quiet)
    assert not torch.equal(weights(first), weights(third)), "another seed is another stream"


@pytest.mark.parametrize("exact", [False, True])
def test_each_micro_batch_is_a_sign_of_life_and_the_wait_for_others_comes_last(exact: bool) -> None:
    seen: list[tuple[Phase, int]] = []
    step = make(shards=3)
    if exact:
        step = replace(step, exact=ExactGradients(step.model, 3, step.world))
    step.run(7, lambda phase, number: seen.append((phase, number)))
    assert seen == [(Phase.STEP, 7)] * 3 + [(Phase.SYNC, 7)]


def test_loss_falls() -> None:
    step = make()
    losses = [sum(step.run(s, quiet).losses) for s in range(40)]
    assert losses[-1] < 0.6 * losses[0], f"expected the loss to fall clearly, got {losses[0]} to {losses[-1]}"


def test_bf16_autocast_trains_and_fp16_needs_cuda() -> None:
    step = make(precision="bf16")
    losses = [sum(step.run(s, quiet).losses) for s in range(30)]
    assert losses[-1] < 0.8 * losses[0]
    with pytest.raises(ConfigError, match="fp16 needs a CUDA device"):
        Precision("fp16", torch.device("cpu"))


def test_a_gradient_that_is_not_finite_is_a_final_error_by_name() -> None:
    step = make()
    with torch.no_grad():
        next(step.model.parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError, match="step 5: the gradient is not finite"):
        step.run(5, quiet)


class Overflowing(torch.nn.Module):
    """Its activations are beyond fp16's range in all forward passes from number `first` on, until `last`."""

    def __init__(self, model: torch.nn.Module, first: int, last: float) -> None:
        super().__init__()
        self.inner, self._first, self._last, self._passes = model, first, last, 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self._passes += 1
        logits: torch.Tensor = self.inner(inputs)
        return logits * float("inf") if self._first <= self._passes <= self._last else logits


def make_scaled(first: int, last: float) -> TrainingStep:
    """A step with the scaler that fp16 has, here on the CPU; one forward pass a step."""
    step = make(shards=1)
    step.precision._scaler = GradScaler("cpu")
    return replace(step, model=Overflowing(step.model, first, last))


def test_a_scaler_that_finds_no_scale_ends_the_run_and_so_does_its_resume() -> None:
    step = make_scaled(3, float("inf"))
    done = 0
    with pytest.raises(DivergedError, match="the gradient is not finite") as ended:
        for done in range(200):
            kept = step.precision.state()
            step.run(done, quiet)
    assert 20 < done < 40, "a scaler needs some steps to find its scale, and not for ever"

    again = make_scaled(1, float("inf"))
    again.precision.restore(kept)
    with pytest.raises(DivergedError) as resumed:
        again.run(done, quiet)
    assert str(resumed.value) == str(ended.value)


def test_overflows_that_end_are_skipped() -> None:
    step = make_scaled(3, 12)
    results = [step.run(s, quiet) for s in range(20)]
    assert [not math.isfinite(r.gradient_norm) for r in results] == [False] * 2 + [True] * 10 + [False] * 8
    assert sum(results[-1].losses) < sum(results[0].losses), "it trains on"
