"""Chorales from the music21 that is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from music21 import corpus
from symusic.core import ScoreTick

from aurl_trainer.config.data import DataConfig
from aurl_trainer.data.dataset import LazyMidiDataset
from aurl_trainer.data.prepared import prepare
from aurl_trainer.data.source.chorales import chorale_midi, chorales


def test_the_collection() -> None:
    found = chorales()
    assert len(found) > 300
    assert [c.name for c in found] == sorted({c.name for c in found}), "each once, sorted"
    first = next(c for c in found if c.name == "bach/bwv269")
    assert (first.work, first.title) == ("bwv269", "Aus meines Herzens Grunde")


# One with a horn beside the voices, one with ties across bars, one in 3/2.
@pytest.mark.parametrize("name", ["bach/bwv1.6", "bach/bwv269", "bach/bwv244.3", "bach/bwv153.1"])
def test_the_four_voices_are_as_music21_has_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "chorale.mid"
    data = chorale_midi(name, path)
    assert path.read_bytes() == data and [p.name for p in path.parent.iterdir()] == ["chorale.mid"]
    score = ScoreTick.from_midi(data)
    work = corpus.parse(name, forceSource=True)
    voices = [p for p in work.parts if p.partName in ("Soprano", "Alto", "Tenor", "Bass")]
    assert [t.name for t in score.tracks] == [p.partName for p in voices]
    for track, part in zip(score.tracks, voices, strict=True):
        found = sorted((n.time, n.time + n.duration, n.pitch) for n in track.notes)
        wanted = sorted(
            (round(e.offset * 480), round((e.offset + e.quarterLength) * 480), pitch.midi)
            for e in part.stripTies().flatten().notes
            if e.quarterLength > 0
            for pitch in e.pitches
        )
        assert found == wanted, f"{part.partName} of {name}"
    signs = [(s.time / 480, s.numerator, s.denominator) for s in score.time_signatures]
    assert signs[0] == (0, *map(int, work.parts[0].flatten().timeSignature.ratioString.split("/")))


def test_a_chorale_is_parsed_once(tmp_path: Path) -> None:
    path = tmp_path / "chorale.mid"
    path.write_bytes(b"what is there")
    assert chorale_midi("bach/bwv269", path) == b"what is there"


@pytest.mark.processes
def test_chorales_become_samples(tmp_path: Path) -> None:
    config = DataConfig.model_validate(
        {"source": {"music21": "bach", "limit": 3}, "cache": str(tmp_path), "sequence_length": 128}
    )
    prepared = prepare(config, seed=1)
    assert len(prepared.pieces) == 3 and prepared.rejected == ()
    assert {p.composer for p in prepared.pieces} == {"Bach"} and all(p.title for p in prepared.pieces)
    assert len(LazyMidiDataset(prepared, "validation")) > 0
    with_other_tokens = config.model_copy(
        update={"tokenizer": config.tokenizer.model_copy(update={"type": "TSD"})}
    )
    times = {p: p.stat().st_mtime_ns for p in tmp_path.glob("bach-*/*")}
    assert len(times) == 3
    assert prepare(with_other_tokens, seed=1).key != prepared.key
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("bach-*/*")} == times, "not parsed again"
