"""Sums of floats: exact, whatever the order and whoever has which addend."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurl_trainer.engine.exact.scalars import LIMBS, from_limbs, to_limbs

finite = st.floats(allow_nan=False, allow_infinity=False)


def total(parts: list[list[float]]) -> float:
    """As ranks do it: each its own limbs, added element by element."""
    limbs = [to_limbs(part) for part in parts]
    assert all(len(row) == LIMBS and max(map(abs, row)) < 2**32 for row in limbs)
    return from_limbs([sum(column) for column in zip(*limbs, strict=True)])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(finite, st.integers(0, 3)), min_size=1, max_size=12))
def test_no_order_and_no_distribution_changes_the_exact_sum(addends: list[tuple[float, int]]) -> None:
    parts: list[list[float]] = [[] for _ in range(4)]
    for value, owner in addends:
        parts[owner].append(value)
    expected = sum((Fraction(value) for value, _ in addends), Fraction(0))
    try:
        rounded = float(expected)
    except OverflowError:
        rounded = math.inf if expected > 0 else -math.inf
    assert total(parts) == rounded, "the sum is the exact one, rounded once"
    assert total([[value for value, _ in reversed(addends)]]) == rounded, "and the same on one rank"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([[]], 0.0),
        ([[1e16], [1.0], [-1e16]], 1.0),
        ([[5e-324, 1e308], [-1e308]], 5e-324),
        ([[math.inf], [1.0]], math.inf),
        ([[-math.inf], [math.inf]], math.nan),
        ([[1.0], [math.nan, -math.inf]], math.nan),
        ([[1.7e308], [1.7e308]], math.inf),
        ([[-1.7e308] * 3], -math.inf),
    ],
)
def test_extremes(parts: list[list[float]], expected: float) -> None:
    assert total(parts) == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
