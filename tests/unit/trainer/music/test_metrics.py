"""What music measures: by hand for small pieces, and worse and worse as real music is spoilt step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from symusic import Note, Score, TimeSignature, Track

from aurl_trainer.music.metrics import measure, measure_all
from tests.unit.trainer.music.conftest import tune

TICKS = 480
SHARES = (0.0, 0.15, 0.3, 0.45, 0.6)


Notes = list[tuple[float, float, int]]


def piece(notes: Notes, *, drums: bool = False, metre: tuple[int, int] = (4, 4)) -> Any:
    """Notes of (start, length, pitch), in quarters."""
    score: Any = Score(TICKS)
    score.time_signatures.append(TimeSignature(0, *metre))
    track: Any = Track("notes", is_drum=drums)
    for start, length, pitch in notes:
        track.notes.append(Note(round(start * TICKS), round(length * TICKS), pitch, 80))
    score.tracks.append(track)
    return score


def test_by_hand() -> None:
    scale = [(float(i), 1.0, 60 + tone) for i, tone in enumerate((0, 2, 4, 5, 7, 9, 11, 12))]
    found = measure(piece(scale))
    entropy = -(6 * 1 / 8 * math.log2(1 / 8) + 2 / 8 * math.log2(2 / 8))
    assert found == {
        "pitch_class_entropy": pytest.approx(entropy),
        "scale_consistency": 1.0,
        "polyphony": 1.0,
        "groove_consistency": 1.0,  # an onset on every beat of both bars
        "empty_beat_rate": 0.0,
    }
    black = measure(piece([*scale, (8.0, 1.0, 61), (9.0, 1.0, 63)]))
    assert black["scale_consistency"] == pytest.approx(8 / 10), "no scale has C sharp, E flat and E"


def test_polyphony_rests_and_groove_by_hand() -> None:
    # A chord of three over one quarter and one note of two quarters from there; a rest of a bar; one note.
    notes = [(0.0, 1.0, 60), (0.0, 1.0, 64), (0.0, 1.0, 67), (1.0, 2.0, 72), (7.0, 1.0, 60)]
    found = measure(piece(notes))
    assert found["polyphony"] == pytest.approx((3 + 1 + 1 + 1) / 4)
    assert found["empty_beat_rate"] == pytest.approx(4 / 8)
    assert found["groove_consistency"] == pytest.approx(1 - 3 / 16), "three of sixteen positions differ"
    three = measure(piece(notes, metre=(3, 4)))["groove_consistency"]
    # Bars of 12: onsets at 0 and 4; none; at 4.
    assert three == pytest.approx(1 - (2 + 1) / 24)


def test_what_a_piece_does_not_define_is_left_out() -> None:
    assert measure(piece([])) == {}
    assert measure_all([piece([]), piece([])]) == {}
    assert measure_all([]) == {}
    assert "groove_consistency" not in measure(piece([(0, 1, 60)])), "one bar has no neighbour"
    drums = measure(piece([(float(i), 0.25, 36) for i in range(8)], drums=True))
    assert drums == {"groove_consistency": 1.0, "empty_beat_rate": 0.0}
    pieces = [piece([(0, 1, 60)]), piece([]), piece([(0, 1, 60), (0, 1, 64), (0, 1, 67)])]
    assert measure_all(pieces)["polyphony"] == 2.0, "the mean over the pieces that have notes"


def other_pitches(note: Any, rng: np.random.Generator) -> None:
    note.pitch = int(rng.integers(36, 84))


def other_times(note: Any, rng: np.random.Generator) -> None:
    note.time = int(rng.integers(0, 8 * 16)) * TICKS // 4


def crammed(note: Any, rng: np.random.Generator) -> None:
    note.time, note.duration = note.time // (4 * TICKS) * 4 * TICKS, TICKS // 4


def much_shorter(note: Any, rng: np.random.Generator) -> None:
    note.duration = TICKS // 4


@pytest.mark.parametrize(
    ("name", "spoil", "rises"),
    [
        ("scale_consistency", other_pitches, False),
        ("pitch_class_entropy", other_pitches, True),
        ("groove_consistency", other_times, False),
        ("empty_beat_rate", crammed, True),
        ("polyphony", much_shorter, False),
    ],
)
def test_each_changes_steadily_as_music_is_spoilt(
    name: str, spoil: Callable[[Any, np.random.Generator], None], rises: bool
) -> None:
    values = []
    for share in SHARES:
        rng = np.random.default_rng(3)
        pieces: list[Any] = [tune(seed) for seed in range(20)]
        for score in pieces:
            for track in score.tracks:
                for note in track.notes:
                    if rng.random() < share:
                        spoil(note, rng)
        values.append(measure_all(pieces)[name])
    assert values == sorted(values, reverse=not rises), f"{name} over {SHARES}: {values}"
    assert abs(values[-1] - values[0]) > 0.05, f"{name} hardly changes: {values}"
