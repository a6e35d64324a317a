"""The schedule is a function of the step, and only matrices are decayed."""

from __future__ import annotations

import itertools

import pytest
from torch import nn

from aurl_trainer.config.engine import OptimizerConfig
from aurl_trainer.engine.optimizer import build_optimizer, learning_rate, set_learning_rate

CONFIG = OptimizerConfig(learning_rate=1.0, warmup_steps=10, final_fraction=0.1)


def test_rate_rises_to_the_peak_and_falls_to_the_final_fraction() -> None:
    rates = [learning_rate(CONFIG, step, 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[60] == pytest.approx(0.55), "half way down the cosine lies half way between peak and end"
    assert rates[110] == pytest.approx(0.1)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(CONFIG.model_copy(update={"warmup_steps": 0}), 0, 10) == pytest.approx(1.0)


def test_norms_and_biases_are_not_decayed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    model[0].bias.requires_grad_(False)
    optimizer = build_optimizer(model, CONFIG)
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decays == {id(model[0].weight): 0.1, id(model[1].weight): 0.0, id(model[1].bias): 0.0}
    set_learning_rate(optimizer, 0.5)
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.5]
