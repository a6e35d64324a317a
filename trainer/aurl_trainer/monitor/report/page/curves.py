"""Series of numbers made fit to be drawn: smoothed, and thinned without losing their extremes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

POINTS = 900
"""Most points that a thinned series has: about one per pixel of a wide page."""


@dataclass(frozen=True)
class Series:
    """Numbers over numbers; `y` may hold None where a number was not finite."""

    x: tuple[float, ...] = ()
    y: tuple[float | None, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    @property
    def finite(self) -> list[float]:
        """Values of `y` that are numbers."""
        return [v for v in self.y if v is not None and math.isfinite(v)]


def smoothed(series: Series, span: int | None = None) -> Series:
    """Exponential moving average over about `span` points (default: a fortieth of them, at least 5).

    Taken in both directions and averaged, so that it does not lag behind a falling curve. A missing value
    is passed over.
    """
    decay = 1 - 2 / ((span or max(5, len(series) // 40)) + 1)
    forward = _average(series.y, decay)
    backward = _average(series.y[::-1], decay)[::-1]
    both = zip(forward, backward, strict=True)
    return Series(series.x, tuple(None if a is None or b is None else (a + b) / 2 for a, b in both))


def _average(values: Sequence[float | None], decay: float) -> list[float | None]:
    """Started without bias, as Adam's moments are (Kingma and Ba 2015, arXiv:1412.6980, section 3):
    the sum is divided by the sum of its weights."""
    total = weight = 0.0
    means: list[float | None] = []
    for value in values:
        if value is not None and math.isfinite(value):
            total = decay * total + (1 - decay) * value
            weight = decay * weight + (1 - decay)
        means.append(total / weight if weight else None)
    return means


def thinned(series: Series, points: int = POINTS) -> Series:
    """At most `points` points: first and last, and of each stretch between the lowest and the highest.

    A spike of one step in a hundred thousand is still there.
    """
    count = len(series)
    if count <= points:
        return series
    stretches = max(1, (points - 2) // 2)
    kept = {0, count - 1}
    for index in range(stretches):
        begin, end = index * count // stretches, (index + 1) * count // stretches
        known = [(v, i) for i in range(begin, end) if (v := series.y[i]) is not None]
        if known:
            kept.update((min(known)[1], max(known)[1]))
    order = sorted(kept)
    return Series(tuple(series.x[i] for i in order), tuple(series.y[i] for i in order))


def span_of(parts: Sequence[Sequence[float]], trim: float = 0.0) -> tuple[float, float] | None:
    """Lowest and highest value of all parts without the share `trim` at each end; None: no values."""
    values = sorted(v for part in parts for v in part if math.isfinite(v))
    if not values:
        return None
    cut = int(len(values) * trim)
    return values[cut], values[len(values) - 1 - cut]
