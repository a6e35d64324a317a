"""What is saved before leaving, by values: seconds left, seconds that saves take, a save under way or not."""

from __future__ import annotations

import math

import pytest

from aurl_trainer.engine.survival.last_save import LastSave, lacks, last_save


def choose(ranks: list[tuple[float, float, float]], under_way: float | None) -> LastSave:
    """`ranks` are (left, stage, rest)."""
    each = [lacks(left, stage, rest, under_way) for left, stage, rest in ranks]
    return last_save(under_way is not None, [sum(column) for column in zip(*each, strict=True)])


@pytest.mark.parametrize(
    ("left", "stage", "rest", "under_way", "expected"),
    [
        (math.inf, 1, 100, None, LastSave.SAVE),
        (math.inf, 1, 100, 5, LastSave.WAIT_AND_SAVE),
        (30, 0, 0, None, LastSave.SAVE),  # no save was measured yet: try
        (30, 1, 20, None, LastSave.SAVE),
        (30, 1, 25, None, LastSave.NOTHING),  # 26 s measured; such a save may take a quarter longer
        (60, 1, 20, 15, LastSave.WAIT_AND_SAVE),
        (30, 1, 20, 15, LastSave.GIVE_UP_AND_SAVE),  # time for one of the two
        (20, 1, 20, 15, LastSave.WAIT),  # only what is nearly done can end
        (5, 1, 20, 2, LastSave.NOTHING),
        (-1, 0, 0, None, LastSave.NOTHING),
        (29, 0, 0, 20, LastSave.GIVE_UP_AND_SAVE),  # the first save goes on for 20 s: 25 s are assumed
        (30, 0, 0, 28, LastSave.WAIT),
    ],
)
def test_choice(left: float, stage: float, rest: float, under_way: float | None, expected: LastSave) -> None:
    assert choose([(left, stage, rest)], under_way) is expected


def test_the_rank_with_the_least_time_decides_for_all() -> None:
    calm, hurried = (math.inf, 1.0, 20.0), (30.0, 1.0, 20.0)
    assert choose([calm, calm], 15) is LastSave.WAIT_AND_SAVE
    assert choose([calm, hurried], 15) is LastSave.GIVE_UP_AND_SAVE
    assert choose([(10.0, 1.0, 20.0), calm], None) is LastSave.NOTHING
