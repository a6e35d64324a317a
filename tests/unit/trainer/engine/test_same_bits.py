"""A run that is resumed by as many ranks as before does every step as the undisturbed one, to the bit.

In the ordinary mode, whose sums depend on the order of their addends: from three ranks on an order of its own
for each place in the buckets of gradients. In exact mode: exact/test_worlds.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aurl_trainer.contract import ExitCode
from aurl_trainer.engine.parallel import synchronised
from tests.unit.trainer.engine.worlds import Worlds, train, world_of

pytestmark = pytest.mark.processes


def test_a_world_of_three_goes_on_with_the_same_bits(worlds: Worlds, tmp_path: Path) -> None:
    fields = {"batch": {"global_batch": 24, "shards": 8}}
    calm, *_ = worlds.run(3, train, str(tmp_path / "calm"), None, fields)
    losses: dict[int, Any] = {}
    for until in (1, 4, None):
        ranks = worlds.run(3, train, str(tmp_path / "hard"), until, fields)
        assert {r["left"] for r in ranks} == {ExitCode.REJOIN if until else None}
        losses.update(ranks[0]["losses"])
    assert losses == calm["losses"]
    assert ranks[0]["weights"] == calm["weights"], "the final weights differ from the undisturbed run's"


class Tangled(nn.Module):
    """Two layers that are used in another order than they were made in, and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first, self.fixed = nn.Linear(4, 1), nn.Linear(3, 4), nn.Linear(3, 3)
        self.fixed.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(self.first(self.fixed(x)).tanh())
        return y


def _gradients(rank: int, size: int) -> list[tuple[list[float], list[float]]]:
    """Of three steps of two passes each: the world's gradients by DDP, and the mean of all ranks' own."""
    torch.manual_seed(5)
    model = Tangled()
    wrapped = world_of(rank, size).wrap(model)
    assert all(p.grad is None for p in model.parameters()), "nothing is left of how the buckets were laid out"
    inputs = torch.randn(3, 2, size, 7, 3)
    trained = [p for p in model.parameters() if p.requires_grad]
    found = []
    for step in inputs:
        for parameter in trained:
            parameter.grad = None
        for last, part in zip((False, True), step, strict=True):
            with synchronised(wrapped, last):
                wrapped(part[rank]).sum().backward()
        mean = torch.autograd.grad(model(step).sum() / size, trained)
        found.append(
            ([float(p.grad.sum()) for p in trained if p.grad is not None], [float(g.sum()) for g in mean])
        )
    return found


def test_gradients_are_the_mean_over_the_world_from_the_first_step_on(worlds: Worlds) -> None:
    for steps in worlds.run(3, _gradients):
        for found, expected in steps:
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
