"""Curves keep their extremes, axes have round ticks, words are words."""

from __future__ import annotations

import math
import random

import pytest

from aurl_trainer.monitor.report.page import charts, words
from aurl_trainer.monitor.report.page.curves import Series, smoothed, thinned


def test_thinning_keeps_ends_and_spikes() -> None:
    noise = random.Random(1)
    values: list[float | None] = [noise.gauss(2, 0.1) for _ in range(100_000)]
    values[54_321], values[70_000] = 99.0, None
    thin = thinned(Series(tuple(range(100_000)), tuple(values)), 900)
    assert len(thin) <= 900
    assert thin.x[0] == 0 and thin.x[-1] == 99_999
    assert 99.0 in thin.y, "a spike of one step is lost"
    assert list(thin.x) == sorted(set(thin.x))


def test_a_short_series_stays_as_it_is() -> None:
    series = Series((1, 2, 3), (1.0, None, 3.0))
    assert thinned(series) is series


def test_smoothing_is_unbiased_at_the_start_and_passes_over_gaps() -> None:
    constant = smoothed(Series((1, 2, 3, 4), (2.0, None, 2.0, 2.0)))
    assert constant.y == pytest.approx((2.0, 2.0, 2.0, 2.0))
    assert smoothed(Series((1,), (None,))).y == (None,)
    falling = smoothed(Series(tuple(range(200)), tuple(float(-i) for i in range(200))), span=9)
    assert falling.y[100] == pytest.approx(-100.0, abs=0.01), "it lags behind"
    noise = random.Random(1)
    rough = Series(tuple(range(1000)), tuple(noise.gauss(0, 1) for _ in range(1000)))
    level = smoothed(rough).finite[100:]
    assert max(map(abs, level)) < 1.0, "smoothing over 25 points must divide the noise by about 3.5"


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1e-3), (0, 200), (1.31, 6.7), (-3, 3), (5, 5), (0, 0), (1e9, 2e9)]
)
def test_axes_have_few_round_ticks_within_them(low: float, high: float) -> None:
    axis = charts.linear(low, high, snap=True)
    assert axis.low <= low and axis.high >= high
    assert 2 <= len(axis.ticks) <= 9
    assert all(-0.01 <= t.at <= 100.01 for t in axis.ticks)
    assert len({t.label for t in axis.ticks}) == len(axis.ticks), "two ticks read the same"


@pytest.mark.parametrize("total", [0.0, 0.3, 161.0, 3 * 3600.0, 40 * 86400.0])
def test_axes_of_time_have_few_ticks(total: float) -> None:
    axis = charts.seconds_axis(total)
    assert 1 <= len(axis.ticks) <= 10
    assert axis.ticks[0].label == "0:00"


def test_paths_break_where_numbers_are_missing() -> None:
    axis = charts.Axis(0.0, 10.0)
    assert (
        charts.path(Series((0, 5, 7, 10), (0.0, 10.0, math.nan, 5.0)), axis, axis)
        == "M0.0 1000.0L500.0 0.0M1000.0 500.0"
    )
    assert charts.path(Series((5,), (5.0,)), axis, axis) == "M500.0 500.0h0.1"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.9, "9.9 s"),
        (9.97, "10 s"),
        (59.7, "1 min"),
        (161, "2 min 41 s"),
        (11_100, "3 h 5 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_numbers_in_words() -> None:
    assert [words.count(n) for n in (9_999, 14_200, 999_999, 3_140_000)] == [
        "9,999",
        "14.2 thousand",
        "1 million",
        "3.14 million",
    ]
    assert words.plural(0, "step") == "no steps" and words.plural(1, "step") == "1 step"
    assert words.listing(["a", "b", "c"]) == "a, b and c"
