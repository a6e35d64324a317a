"""How far a run is: which evaluation is the best so far."""

from __future__ import annotations

import math

import pytest

from aurl_trainer.engine.state.position import Position


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_only_a_finite_nll_is_the_best(bad: float) -> None:
    first, best = Position().evaluated(bad)
    assert not best and first.best_nll is None and (first.val_nll, first.val_step) == (bad, 0)
    second, best = first.evaluated(2.0)
    assert best and second.best_nll == 2.0
    for nll in (2.0, 3.0, bad):
        after, best = second.evaluated(nll)
        assert not best and after.best_nll == 2.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_that_is_not_finite_is_not_kept_as_the_best(bad: float) -> None:
    resumed = Position(best_nll=bad)
    assert resumed.evaluated(bad)[0].best_nll is None
    after, best = resumed.evaluated(4.0)
    assert best and after.best_nll == 4.0
