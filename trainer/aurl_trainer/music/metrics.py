"""What a piece of music measures: a few numbers in which bad music differs from good.

Computed on notes, never on token ids, on a grid of sixteenths (on finer ticks the groove of anything looks
steady). As in MusPy (Dong et al. 2020, arXiv:2008.01951), which takes pitch class entropy and groove from Wu
and Yang (2020, arXiv:2008.01307) and scale consistency from Mogren (2016, arXiv:1611.09904). None alone says
that music is good: a loop of one bar has a perfect groove. Drums have no pitch, and count for the groove and
the empty beats only. Not here: how music is sampled (sampled.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRID = 4
"""Steps of the grid in a quarter note."""

_MAJOR = (0, 2, 4, 5, 7, 9, 11)
"""A natural minor scale has the pitches of the major scale three semitones above."""


@dataclass(frozen=True)
class _Notes:
    """int64 [notes] each; times in steps of the grid. `bar`: steps in a bar."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    pitch: NDArray[np.int64]
    pitched: NDArray[np.bool_]
    bar: int

    @property
    def length(self) -> int:
        """Steps until the last note ends."""
        return int(self.end.max(initial=0))


def measure(score: Any) -> dict[str, float]:
    """The metrics of a symusic Score, by name; one that the piece does not define is left out.

    `pitch_class_entropy`: bits, 0 to 3.58. `scale_consistency`: the share of notes in the major or minor
    scale that holds most. `polyphony`: the mean number of notes that sound at once where any does.
    `groove_consistency`: 1 less the mean share of positions in which the onsets of neighbouring bars differ,
    in the metre that the piece begins with. `empty_beat_rate`: the share of quarters in which nothing sounds.
    """
    notes = _on_grid(score)
    found = {
        "pitch_class_entropy": _pitch_class_entropy(notes),
        "scale_consistency": _scale_consistency(notes),
        "polyphony": _polyphony(notes),
        "groove_consistency": _groove_consistency(notes),
        "empty_beat_rate": _empty_beat_rate(notes),
    }
    return {name: value for name, value in found.items() if value is not None}


def measure_all(scores: Iterable[Any]) -> dict[str, float]:
    """The mean of each metric over the pieces that define it; none of those that no piece defines."""
    found: dict[str, list[float]] = {}
    for score in scores:
        for name, value in measure(score).items():
            found.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def _on_grid(score: Any) -> _Notes:
    coarse = score.resample(tpq=GRID, min_dur=1)
    columns = [(track.notes.numpy(), not track.is_drum) for track in coarse.tracks if len(track.notes)]

    def join(name: str) -> NDArray[np.int64]:
        parts = [np.asarray(notes[name], dtype=np.int64) for notes, _ in columns]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    start = join("time")
    pitched = [np.full(len(notes["time"]), is_pitched) for notes, is_pitched in columns]
    first = min(score.time_signatures, key=lambda s: s.time, default=None)
    bar = 4 * GRID if first is None else max(1, 4 * GRID * first.numerator // first.denominator)
    return _Notes(
        start,
        start + join("duration"),
        join("pitch"),
        np.concatenate(pitched) if pitched else np.zeros(0, dtype=np.bool_),
        bar,
    )


def _pitch_classes(notes: _Notes) -> NDArray[np.int64]:
    """How many notes there are of each pitch class, int64 [12]."""
    return np.bincount(notes.pitch[notes.pitched] % 12, minlength=12).astype(np.int64)


def _pitch_class_entropy(notes: _Notes) -> float | None:
    counts = _pitch_classes(notes)
    if not counts.sum():
        return None
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # a sum of nothing is -0.0


def _scale_consistency(notes: _Notes) -> float | None:
    counts = _pitch_classes(notes)
    if not counts.sum():
        return None
    best = max(sum(int(counts[(root + tone) % 12]) for tone in _MAJOR) for root in range(12))
    return best / int(counts.sum())


def _sounding(notes: _Notes, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of the chosen notes sound in each step, int64 [steps]."""
    change = np.zeros(notes.length + 1, dtype=np.int64)
    np.add.at(change, notes.start[chosen], 1)
    np.add.at(change, notes.end[chosen], -1)
    return change.cumsum()[:-1]


def _polyphony(notes: _Notes) -> float | None:
    sounding = _sounding(notes, notes.pitched)
    heard = np.count_nonzero(sounding)
    return float(sounding.sum() / heard) if heard else None


def _groove_consistency(notes: _Notes) -> float | None:
    bars = math.ceil(notes.length / notes.bar)
    if bars < 2:
        return None
    onsets = np.zeros(bars * notes.bar, dtype=np.bool_)
    onsets[notes.start] = True
    patterns = onsets.reshape(bars, notes.bar)
    return 1.0 - float((patterns[1:] != patterns[:-1]).mean())


def _empty_beat_rate(notes: _Notes) -> float | None:
    if not notes.length:
        return None
    sounding = _sounding(notes, np.ones_like(notes.pitched)) > 0
    beats = math.ceil(notes.length / GRID)
    heard = np.zeros(beats * GRID, dtype=np.bool_)
    heard[: len(sounding)] = sounding
    return 1.0 - float(heard.reshape(beats, GRID).any(axis=1).mean())
