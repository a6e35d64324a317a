"""Real MIDI files, written with symusic into a test's folder."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from symusic.core import NoteTick, ScoreTick, TimeSignatureTick, TrackTick

from aurl_trainer.config.data import DataConfig

WritePieces = Callable[..., list[str]]
Configure = Callable[..., DataConfig]


def piece(seed: int, bars: int = 12, drums: bool = False) -> ScoreTick:
    """Two voices in 4/4 on a grid of semiquavers, never two notes on one pitch at once."""
    chance = random.Random(seed)
    score = ScoreTick(480)
    score.time_signatures.append(TimeSignatureTick(0, 4, 4))
    for low, name in ((48, "low"), (66, "high")):
        track = TrackTick(name, 0, drums)
        time = 0
        while time < bars * 1920:
            length = chance.choice([1, 2, 4, 8]) * 120
            track.notes.append(NoteTick(time, length, low + chance.randrange(16), chance.randrange(20, 120)))
            time += length
        score.tracks.append(track)
    return score


@pytest.fixture
def midi(tmp_path: Path) -> Path:
    """An empty folder for MIDI files."""
    folder = tmp_path / "midi"
    folder.mkdir()
    return folder


@pytest.fixture
def write_pieces(midi: Path) -> WritePieces:
    def write(count: int = 6, bars: int = 12, prefix: str = "piece") -> list[str]:
        names = [f"{prefix}-{i:02d}.mid" for i in range(count)]
        for i, name in enumerate(names):
            piece(i, bars).dump_midi(midi / name)
        return names

    return write


@pytest.fixture
def configure(midi: Path, tmp_path: Path) -> Configure:
    """A data configuration over the test's MIDI folder, with a cache of its own."""

    def of(source: dict[str, Any] | None = None, **fields: Any) -> DataConfig:
        plain = {
            "source": {"midi": str(midi), **(source or {})},
            "cache": str(tmp_path / "cache"),
            "sequence_length": 64,
            "workers": 1,
            **fields,
        }
        return DataConfig.model_validate(plain)

    return of
