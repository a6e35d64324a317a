"""Geometry of the charts: axes with round ticks, and paths. Nothing here knows about runs or HTML.

Positions along an axis are percent of the plot, so that the page can be any width and its labels keep
their size; paths are in a square of 1000 by 1000 that the page stretches over the plot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aurl_trainer.monitor.report.page.curves import Series
from aurl_trainer.monitor.report.page.words import clock

_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis; a minor one is left out where there is little room."""

    at: float
    label: str
    minor: bool = False


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, laid over 0 to 100 percent."""

    low: float
    high: float
    ticks: tuple[Tick, ...] = ()

    def at(self, value: float) -> float:
        """Percent of the axis; outside of 0 to 100 for values that are outside."""
        return round(100 * (value - self.low) / (self.high - self.low), 3)


@dataclass(frozen=True)
class Curve:
    """A line through a series. `style` is a class of the page's style sheet."""

    name: str
    style: str
    path: str
    points: Series
    area: str = ""


@dataclass(frozen=True)
class Rule:
    """A horizontal line at a value, with its label."""

    name: str
    style: str
    at: float
    value: float


@dataclass(frozen=True)
class Mark:
    """A vertical line with a flag."""

    at: float
    label: str
    title: str
    style: str = ""


@dataclass(frozen=True)
class Chart:
    """One plot. `summary` says in words what can be seen; `digits` are those of a value under the cursor."""

    id: str
    title: str
    unit: str
    summary: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...] = ()
    rules: tuple[Rule, ...] = ()
    marks: tuple[Mark, ...] = ()
    x_name: str = "step"
    digits: int = 3
    small: bool = False

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Name and style of each kind of curve, once."""
        return list(dict.fromkeys((c.name, c.style) for c in self.curves))


def linear(
    low: float, high: float, count: int = 5, label: Callable[[float], str] | None = None, snap: bool = False
) -> Axis:
    """An axis over [low, high] with about `count` round ticks; `snap` widens it to the ticks around it."""
    if not high > low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    step = _round_step((high - low) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if snap:
        low, high = first * step, last * step
    text = label or (lambda v: f"{v:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}")
    values = [i * step for i in range(first, last + 1) if low - step / 1e6 <= i * step <= high + step / 1e6]
    return _axis(low, high, values, text)


def seconds_axis(total: float, count: int = 8) -> Axis:
    """An axis of elapsed time from 0 to `total` seconds with ticks that clocks have."""
    total = max(total, 1.0)
    step = next((s for s in _SECONDS if total / s <= count), 86400 * math.ceil(total / 86400 / count))
    return _axis(0.0, total, [float(v) for v in range(0, math.floor(total) + 1, int(step))], clock)


def path(series: Series, x: Axis, y: Axis) -> str:
    """SVG path through the series, interrupted where a value is missing."""
    parts: list[str] = []
    pen_down = False
    for a, b in zip(series.x, series.y, strict=True):
        if b is None or not math.isfinite(b):
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{10 * x.at(a):.1f} {_depth(b, y):.1f}")
        pen_down = True
    if len(parts) == 1:  # one point: a dot, which a round line cap makes visible
        parts.append("h0.1")
    return "".join(parts)


def curve(name: str, style: str, series: Series, x: Axis, y: Axis, area: bool = False) -> Curve:
    """The series as a line, with `area` also the surface below it."""
    line = path(series, x, y)
    known = [a for a, b in zip(series.x, series.y, strict=True) if b is not None]
    surface = ""
    if area and len(known) > 1:
        surface = f"{line}L{10 * x.at(known[-1]):.1f} 1000L{10 * x.at(known[0]):.1f} 1000Z"
    return Curve(name, style, line, series, surface)


def _depth(value: float, y: Axis) -> float:
    """From the top, kept within some plots' heights so that far-away values make no absurd numbers."""
    return min(3000.0, max(-2000.0, 10 * (100 - y.at(value))))


def _axis(low: float, high: float, values: Sequence[float], label: Callable[[float], str]) -> Axis:
    bare = Axis(low, high)
    many = len(values) > 4
    ticks = tuple(Tick(bare.at(v), label(v), many and i % 2 == 1) for i, v in enumerate(values))
    return Axis(low, high, ticks)


def _round_step(rough: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten, not below `rough`."""
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= rough * (1 - 1e-9))
