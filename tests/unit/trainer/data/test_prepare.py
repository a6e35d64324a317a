"""From a folder of MIDI to samples: everything in it once, built once, and always the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aurl_trainer.config.data import DataConfig
from aurl_trainer.data.batches import BatchPlan, micro_batches
from aurl_trainer.data.dataset import LazyMidiDataset
from aurl_trainer.data.prepared import PreparedData, data_key, open_prepared, prepare
from aurl_trainer.data.source.listing import list_source
from tests.unit.trainer.data.conftest import Configure, WritePieces, piece
from tests.unit.trainer.data.test_tokenizer import sounding

pytestmark = pytest.mark.processes


def listing(prepared: PreparedData) -> list[tuple[str, str]]:
    return [(p.name, p.split) for p in prepared.pieces]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_token_of_every_piece_is_predicted_once(
    write_pieces: WritePieces, configure: Configure
) -> None:
    names = write_pieces(6)
    prepared = prepare(configure(sequence_length=50), seed=1)
    assert sorted(p.name for p in prepared.pieces) == names
    tokenizer = prepared.tokenizer()
    for split in ("train", "validation"):
        dataset = LazyMidiDataset(prepared, split)  # type: ignore[arg-type]
        predicted: dict[str, list[int]] = {}
        for i in range(len(dataset)):
            sample, count = dataset[i].tolist(), int(dataset.targets[i])
            assert len(sample) == 51
            assert set(sample[count + 1 :]) <= {prepared.pad_id}, "only padding after the end"
            so_far = predicted.setdefault(dataset.piece(i).name, [])
            assert sample[0] == (so_far[-1] if so_far else prepared.bos_id), "windows share one token"
            so_far += sample[1 : count + 1]
        assert sorted(predicted) == sorted(p.name for p in prepared.pieces if p.split == split)
        for name, tokens in predicted.items():
            original = piece(names.index(name))
            assert tokens == [*tokenizer.encode(original), prepared.eos_id], f"{name} is not complete"
            assert sounding(tokenizer.decode(tokens)) == sounding(original)
    assert 0 < dataset.filled <= 1


def test_training_is_transposed_and_validation_is_not(
    write_pieces: WritePieces, configure: Configure
) -> None:
    names = write_pieces(4)
    prepared = prepare(configure(transpose=2), seed=1)
    tokenizer = prepared.tokenizer()
    streams = prepared.streams("train")
    tokens = prepared.tokens()
    trained = {p.name for p in prepared.pieces if p.split == "train"}
    assert len(streams.offset) == 5 * len(trained)
    for offset, length, index, semitones in zip(
        streams.offset, streams.length, streams.piece, streams.semitones, strict=True
    ):
        original = piece(names.index(prepared.pieces[index].name))
        found = sounding(tokenizer.decode(tokens[offset : offset + length].tolist()))
        assert found == [(t, d, pitch + semitones) for t, d, pitch in sounding(original)]
    assert set(prepared.streams("validation").semitones.tolist()) == {0}


def test_a_second_time_it_is_only_opened(write_pieces: WritePieces, configure: Configure) -> None:
    write_pieces(4)
    config = configure()
    first = prepare(config, seed=1)
    times = {p: p.stat().st_mtime_ns for p in first.folder.iterdir()}
    again = prepare(configure(workers=2, sequence_length=32), seed=1)
    assert again.folder == first.folder, "neither workers nor the length of samples change the tokens"
    assert again.sequence_length == 32
    assert {p: p.stat().st_mtime_ns for p in first.folder.iterdir()} == times, "nothing was written again"


def test_opening_loads_no_tokenizer(write_pieces: WritePieces, configure: Configure) -> None:
    write_pieces(4)
    config = configure()
    prepare(config, seed=1)
    code = (
        "import sys; from aurl_trainer.config.data import DataConfig; "
        "from aurl_trainer.data.prepared import prepare; "
        "prepare(DataConfig.model_validate_json(sys.argv[1]), 1); "
        "print([m for m in ('miditok', 'music21', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, config.model_dump_json()], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_what_decides_the_data_decides_the_key(
    write_pieces: WritePieces, configure: Configure, midi: Path, tmp_path: Path
) -> None:
    write_pieces(4)

    def key(config: DataConfig, seed: int = 1) -> str:
        return data_key(config, seed, list_source(config.source, tmp_path))

    keys = [
        key(configure()),
        key(configure(), seed=2),
        key(configure(transpose=1)),
        key(configure(tokenizer={"type": "TSD"})),
        key(configure(split={"validation": 0.3})),
        key(configure({"limit": 3})),
    ]
    piece(50).dump_midi(midi / "another.mid")
    keys.append(key(configure()))
    (midi / "another.mid").rename(midi / "renamed.mid")
    keys.append(key(configure()))
    piece(51).dump_midi(midi / "renamed.mid")
    keys.append(key(configure()))
    assert len(set(keys)) == len(keys), "each of these is other data"
    assert key(configure(workers=3, sequence_length=99, cache="elsewhere")) == keys[-1]


def test_the_same_files_elsewhere_are_the_same_data(
    write_pieces: WritePieces, configure: Configure, midi: Path, tmp_path: Path
) -> None:
    write_pieces(4)
    here = prepare(configure(), seed=1)
    moved = midi.rename(tmp_path / "moved")
    for path in moved.iterdir():
        os.utime(path, (1, 1))
    there = prepare(configure({"midi": str(moved)}, cache=str(tmp_path / "other cache"), workers=2), seed=1)
    assert there.key == here.key
    assert contents(there.folder) == contents(here.folder), "byte by byte, whatever the number of workers"


def test_processes_that_ask_together_build_once(
    write_pieces: WritePieces, configure: Configure, tmp_path: Path
) -> None:
    write_pieces(6)
    code = (
        "import sys, json; from aurl_trainer.config.data import DataConfig; "
        "from aurl_trainer.data.prepared import prepare; "
        "p = prepare(DataConfig.model_validate_json(sys.argv[1]), 1); "
        "print(json.dumps([str(p.folder), p.folder.stat().st_ino, p.key]))"
    )
    command = [sys.executable, "-c", code, configure().model_dump_json()]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = [json.loads(process.communicate()[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert found[0] == found[1] == found[2], "one folder, written once"
    left = [p.name for p in (tmp_path / "cache").iterdir() if p.name.startswith(".building")]
    assert left == []


@pytest.mark.parametrize("damage", ["shortened", "missing", "no index"])
def test_what_is_not_complete_is_built_again(
    write_pieces: WritePieces, configure: Configure, damage: str
) -> None:
    write_pieces(4)
    config = configure()
    whole = prepare(config, seed=1)
    before = contents(whole.folder)
    match damage:
        case "shortened":
            (whole.folder / "tokens.bin").write_bytes(before["tokens.bin"][:-10])
        case "missing":
            (whole.folder / "streams.npy").unlink()
        case "no index":
            (whole.folder / "meta.json").write_text("{")
    assert open_prepared(whole.folder, config) is None
    assert contents(prepare(config, seed=1).folder) == before


def test_a_build_that_was_cut_off_leaves_nothing_behind(
    write_pieces: WritePieces, configure: Configure
) -> None:
    write_pieces(4)
    config = configure()
    folder = prepare(config, seed=1).folder
    left = folder.with_name(f".building-{folder.name}-12345")
    folder.rename(left)
    assert prepare(config, seed=1).folder == folder
    assert not left.exists()


def test_bpe_is_trained_on_the_training_split_only(
    write_pieces: WritePieces, configure: Configure, midi: Path
) -> None:
    write_pieces(6)
    settings = {"tokenizer": {"type": "REMI", "bpe_vocab_size": 900}}
    prepared = prepare(configure(**settings), seed=1)
    held_out = [p.name for p in prepared.pieces if p.split == "validation"]
    tokenizer = (prepared.folder / "tokenizer.json").read_text()
    piece(77).dump_midi(midi / held_out[0])  # other music under the same name stays in the same split
    changed = prepare(configure(**settings), seed=1)
    assert changed.key != prepared.key and listing(changed) == listing(prepared)
    assert (changed.folder / "tokenizer.json").read_text() == tokenizer
    trained = [p.name for p in prepared.pieces if p.split == "train"]
    piece(78).dump_midi(midi / trained[0])
    assert (prepare(configure(**settings), seed=1).folder / "tokenizer.json").read_text() != tokenizer


def test_a_bpe_that_finds_too_little_says_so(write_pieces: WritePieces, configure: Configure) -> None:
    write_pieces(3, bars=60)
    prepared = prepare(configure(sequence_length=32, tokenizer={"bpe_vocab_size": 20_000}), seed=1)
    assert prepared.vocab_size < 20_000
    assert any("BPE only" in warning for warning in prepared.warnings)


def test_real_batches_are_the_same_in_every_world(write_pieces: WritePieces, configure: Configure) -> None:
    write_pieces(5)
    prepared = prepare(configure(transpose=1), seed=1)
    dataset = LazyMidiDataset(prepared)
    plan = BatchPlan(len(dataset), 8, 4, seed=3)
    runs = []
    for world in (1, 2, 3):
        fresh = LazyMidiDataset(prepare(configure(transpose=1), seed=1))  # as another process would
        batches = [
            (b.step, b.shard, b.ids.tolist(), b.inputs.tolist(), b.targets.tolist())
            for step in range(plan.samples // 8 + 3)
            for rank in range(world)
            for b in micro_batches(fresh, plan, step, rank, world)
            if b.weight
        ]
        runs.append(sorted(batches, key=lambda b: b[:2]))
    assert runs[0] == runs[1] == runs[2]


def test_a_dataset_goes_to_another_process_without_its_tokens(
    write_pieces: WritePieces, configure: Configure
) -> None:
    write_pieces(3)
    dataset = LazyMidiDataset(prepare(configure(), seed=1))
    before = dataset[0]
    assert dataset.__getstate__()["_tokens"] is None
    assert isinstance(dataset.prepared.tokens(), np.memmap)
    assert before.tolist() == dataset[0].tolist()
    with pytest.raises(IndexError, match=f"sample {len(dataset)} of {len(dataset)}"):
        dataset[len(dataset)]
