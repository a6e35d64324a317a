"""The sum of tensors as integers: its bits do not depend on order or partition, and its error is bounded."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurl_trainer.engine.exact.fixed_point import (
    FLOOR,
    MARGIN,
    NOT_FINITE,
    Grid,
    add,
    magnitudes,
    nothing,
    values,
)

SIZES = (3, 1, 5)
number = st.floats(width=32, allow_nan=False, allow_infinity=False)
shard = st.lists(number, min_size=sum(SIZES), max_size=sum(SIZES))


def tensors(numbers: list[float]) -> list[Tensor]:
    return list(torch.tensor(numbers, dtype=torch.float32).split(list(SIZES)))


def around(shards: list[list[float]]) -> Grid:
    """A grid that holds all the shards, as the second pass makes it."""
    seen = nothing(len(SIZES), torch.device("cpu"))
    for numbers in shards:
        seen = torch.maximum(seen, magnitudes(tensors(numbers)))
    return Grid.around(seen, len(shards), margin=0)


def floats(total: Tensor, grid: Grid, tensor: int) -> Tensor:
    found = torch.empty(len(total))
    values(total, grid, tensor, found)
    return found


def integers(shards: list[list[float]], grid: Grid) -> Tensor:
    total = torch.zeros(sum(SIZES), dtype=torch.int64)
    for numbers in shards:
        add(total, tensors(numbers), grid)
    return total


few = settings(deadline=None, max_examples=40)


@few
@given(st.lists(shard, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_no_order_and_no_partition_changes_a_bit(shards: list[list[float]], chance: random.Random) -> None:
    grid = around(shards)
    alone = integers(shards, grid)
    shuffled = chance.sample(shards, len(shards))
    ranks: list[list[list[float]]] = [[], [], []]
    for numbers in shuffled:
        chance.choice(ranks).append(numbers)
    spread = torch.zeros_like(alone)
    for rank in chance.sample(ranks, 3):
        spread += integers(rank, grid)
    assert torch.equal(alone, spread)


@few
@given(st.lists(shard, min_size=1, max_size=5))
def test_the_error_is_half_a_quantum_a_shard_and_one_rounding(shards: list[list[float]]) -> None:
    grid, start = around(shards), 0
    total = integers(shards, grid)
    for t, size in enumerate(SIZES):
        found = floats(total[start : start + size], grid, t)
        quantum = Fraction(2) ** int(grid.quantum[t])
        for i in range(size):
            column = [float(tensors(numbers)[t][i]) for numbers in shards]
            exact = sum(map(Fraction, column), Fraction(0))
            if abs(exact) >= Fraction(2) ** 128:
                continue
            bound = len(shards) * quantum / 2 + abs(exact) * Fraction(1, 2**24) + Fraction(1, 2**150)
            bound *= 1 + Fraction(1, 2**20)
            assert abs(Fraction(float(found[i])) - exact) <= bound, f"tensor {t}, addends {column}"
        start += size


@few
@given(shard.filter(lambda numbers: any(numbers)), st.integers(1, 1000))
def test_as_many_of_the_largest_as_there_are_shards_do_not_overflow(numbers: list[float], count: int) -> None:
    grid = Grid.around(magnitudes(tensors(numbers)), count, margin=0)
    # The largest float32 below each limit, so that the sum is as large as one can be.
    largest = [torch.nextafter(torch.tensor(2.0**63), torch.tensor(0.0)).double() / 2**63] * len(SIZES)
    extreme = [(x * 2.0 ** int(m)).reshape(1) for x, m in zip(largest, grid.limit, strict=True)]
    assert grid.holds(magnitudes(extreme))
    once = torch.zeros(len(SIZES), dtype=torch.int64)
    add(once, extreme, grid)
    assert all(0 < int(q) * count < 2**63 for q in once), "the sum of so many fits 63 bits"


def test_what_is_too_large_for_the_grid_is_known() -> None:
    grid = Grid.around(magnitudes([torch.tensor([1.0]), torch.tensor([2.0**-30])]), 4)
    assert grid.holds(magnitudes([torch.tensor([2.0**MARGIN]), torch.tensor([0.0])]))
    assert not grid.holds(magnitudes([torch.tensor([2.0 ** (MARGIN + 1)]), torch.tensor([0.0])]))
    above = 2.0 ** (MARGIN - FLOOR + 1)
    assert not grid.holds(magnitudes([torch.tensor([0.0]), torch.tensor([above])])), "each tensor for itself"


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_known_and_never_held(wrong: float) -> None:
    found = magnitudes([torch.tensor([1.0, 0.5]), torch.tensor([0.0, wrong]), torch.zeros(2)])
    assert found.tolist() == [1, NOT_FINITE, -1022]
    assert not Grid.around(found, 4).holds(found)


def test_the_margin_leaves_more_bits_than_a_float_has() -> None:
    """With shard 0 as reference and four shards, an element 2**18 times below the largest loses no bit."""
    numbers = torch.tensor([1.0, 2.0**-18 + 2.0**-41])
    grid = Grid.around(magnitudes([numbers]), 4)
    total = torch.zeros(2, dtype=torch.int64)
    for _ in range(4):
        add(total, [numbers], grid)
    assert torch.equal(floats(total, grid, 0), numbers * 4)


def test_a_tensor_of_many_blocks_is_added_and_given_back_whole() -> None:
    numbers = torch.linspace(-1, 1, 100_001)
    grid = Grid.around(magnitudes([numbers, numbers[:3]]), 2)
    total = torch.zeros(len(numbers) + 3, dtype=torch.int64)
    for _ in range(2):
        add(total, [numbers, numbers[:3]], grid)
    assert torch.equal(floats(total[:-3], grid, 0), numbers * 2)
    assert torch.equal(floats(total[-3:], grid, 1), numbers[:3] * 2)
