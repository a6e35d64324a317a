"""What decides the samples decides the content, and nothing else does."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from aurl_trainer.config.data import DataConfig
from aurl_trainer.data import prepared as module
from aurl_trainer.data.content import Content, content_of
from aurl_trainer.data.dataset import LazyMidiDataset
from aurl_trainer.data.prepared import PreparedData, prepare
from aurl_trainer.data.tokenizer import PieceTokenizer
from tests.unit.trainer.data.conftest import Configure, WritePieces, piece

pytestmark = pytest.mark.processes

BPE: dict[str, Any] = {"tokenizer": {"bpe_vocab_size": 600}}


def of(prepared: PreparedData) -> Content:
    return content_of(LazyMidiDataset(prepared), LazyMidiDataset(prepared, "validation"))


def content(config: DataConfig, seed: int = 1) -> Content:
    return of(prepare(config, seed))


def test_it_is_what_lies_on_the_disk(write_pieces: WritePieces, configure: Configure) -> None:
    write_pieces(6)
    prepared = prepare(configure(), seed=1)
    assert prepared.tokens_hash == hashlib.sha256((prepared.folder / "tokens.bin").read_bytes()).hexdigest()
    found = of(prepared)
    assert (found["train"]["pieces"], found["validation"]["pieces"]) == (5, 1)
    training = LazyMidiDataset(prepared)
    assert found["train"]["samples"] == len(training) and found["train"]["tokens"] == training.targets.sum()
    assert of(prepare(configure(), seed=1)) == found, "opened again"


def test_what_changes_samples_changes_it(write_pieces: WritePieces, configure: Configure, midi: Path) -> None:
    write_pieces(6)
    found = [
        content(configure()),
        content(configure(split={"validation": 0.4})),
        content(configure(transpose=1)),
        content(configure(tokenizer={"velocities": 1})),
        content(configure(**BPE)),
        content(configure({"limit": 5})),
    ]
    piece(50).dump_midi(midi / "piece-00.mid")
    found.append(content(configure()))
    piece(51).dump_midi(midi / "another.mid")
    found.append(content(configure()))
    assert len({c["digest"] for c in found}) == len(found)
    assert len({c["vocabulary"] for c in found}) == 3, "velocities and BPE give tokens other meanings"


def test_what_only_changes_the_way_there_does_not(
    write_pieces: WritePieces,
    configure: Configure,
    midi: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_pieces(6)
    here = prepare(configure(**BPE), seed=1)
    (midi / "broken.mid").write_bytes(b"no music")
    moved = midi.rename(tmp_path / "moved")
    for path in moved.iterdir():
        os.utime(path, (1, 1))
    monkeypatch.setattr(module, "version", lambda name: "of another image")
    there = prepare(
        configure({"midi": str(moved)}, cache=str(tmp_path / "other cache"), workers=2, **BPE), seed=1
    )
    assert there.key != here.key, "other libraries and one more file: it was made anew"
    assert of(there) == of(here)


def test_the_versions_in_the_tokenizers_file_are_no_meaning(
    write_pieces: WritePieces, configure: Configure
) -> None:
    write_pieces(6)
    prepared = prepare(configure(**BPE), seed=1)
    saved = (prepared.folder / "tokenizer.json").read_text()
    other = prepared.folder.parent / "of another MidiTok.json"
    other.write_text(saved.replace('"miditok_version": "', '"miditok_version": "9'))
    assert other.read_text() != saved
    assert PieceTokenizer(prepared.tokenizer_config, other).vocabulary_hash() == prepared.vocabulary_hash
