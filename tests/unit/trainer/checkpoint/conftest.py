"""Processes with gloo between them, one set for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.trainer.checkpoint.ranks.pool import RankPool


@pytest.fixture(scope="module")
def two() -> Iterator[RankPool]:
    pool = RankPool(2)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def three() -> Iterator[RankPool]:
    pool = RankPool(3)
    yield pool
    pool.close()
