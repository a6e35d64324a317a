"""What bench/exact tells of memory is measured."""

from __future__ import annotations

from argparse import Namespace

import torch

from aurl_trainer.engine.parallel import World
from bench.exact import memory_of
from bench.memory import TensorMemory

CPU = torch.device("cpu")
MB = 1_000_000


def test_the_most_that_tensors_hold_at_once_is_measured() -> None:
    before = torch.zeros(MB, dtype=torch.uint8)
    with TensorMemory(CPU) as memory:
        first = torch.zeros(4 * MB, dtype=torch.uint8)
        second = torch.zeros(3 * MB, dtype=torch.uint8)
        del second
        third = torch.zeros(2 * MB, dtype=torch.uint8)
    assert memory.peak == 7 * MB, "the first and the second were there together"
    assert len(before) + len(first) + len(third) == 7 * MB


def test_exact_sums_hold_eight_bytes_a_parameter_besides() -> None:
    options = Namespace(length=8, dim=128, layers=2, batch=8)
    world = World(0, 1, 0, CPU)
    ordinary, _ = memory_of(False, world, options)
    exact, step = memory_of(True, world, options)
    parameters = sum(p.numel() for p in step.model.parameters())
    assert exact - ordinary >= 0.9 * 8 * parameters, (exact, ordinary, parameters)
    assert exact - ordinary <= 8 * parameters + 4 * parameters, "one bucket more, at most"
