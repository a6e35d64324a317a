"""A run goes on with the music that its weights were trained on, or not at all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from aurl_trainer.checkpoint.loading import open_manifest
from aurl_trainer.config.data import DataConfig
from aurl_trainer.config.losses import LossConfig
from aurl_trainer.contract import Env, ExitCode
from aurl_trainer.data.content import Content
from aurl_trainer.data.prepared import prepare
from aurl_trainer.engine.resume.music import Here, check, compare
from aurl_trainer.engine.trainer import AdvancedTrainer
from aurl_trainer.errors import DataError, LeaveError, RefusedError
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from bench.chaos.job import write_music
from tests.unit.trainer.engine.corpus import Windows
from tests.unit.trainer.engine.runs import Watch, make_experiment
from tests.unit.trainer.engine.test_averages import clean, trainer

assert clean  # the fixture

MUSIC: Content = {
    "digest": "d" * 64,
    "vocabulary": "v" * 64,
    "train": {"pieces": 1234, "samples": 5000, "tokens": 90_000},
    "validation": {"pieces": 10, "samples": 50, "tokens": 900},
}
MORE: Content = MUSIC | {"digest": "e" * 64, "train": {"pieces": 1235, "samples": 5003, "tokens": 90_100}}


def fit(uri: str, prepared: Content | None, leave_after: int | None = None) -> Watch:
    """Train from what lies at `uri`, to the end or until a notice after a step."""
    watch, wanted = Watch(leave_after=leave_after), make_experiment()
    made, model = trainer(uri, watch, wanted)
    AdvancedTrainer(
        model,
        ComprehensiveLossFramework(LossConfig()),
        train=Windows(),
        runtime=watch.runtime,
        checkpointer=made._checkpointer,
        about={"tokenizer": "t" * 64},
        prepared=prepared,
    ).configure(wanted).fit()
    return watch


def test_the_same_music_goes_on_and_other_music_is_refused(tmp_path: Path) -> None:
    uri = str(tmp_path)
    with pytest.raises(LeaveError):
        fit(uri, MUSIC, leave_after=3)
    assert open_manifest(uri).extra["prepared"] == MUSIC
    with pytest.raises(RefusedError) as refused:
        fit(uri, MORE)
    assert str(refused.value).splitlines()[1:] == [
        "  train: 1,234 pieces, 5,000 samples, 90,000 tokens then, "
        "1,235 pieces, 5,003 samples, 90,100 tokens now",
        "  digest: dddddddddddd then, eeeeeeeeeeee now",
        "bring back what data.source had then and resume; or let a new run begin with these weights: another "
        "checkpoint.uri, and initFrom",
    ]
    watch = fit(uri, dict(MUSIC))
    assert [r["step"] for r in watch.of("step")] == list(range(5, 13)), "it went on where it was"


def test_a_checkpoint_that_does_not_know_its_music_goes_on_and_learns_it(tmp_path: Path) -> None:
    uri = str(tmp_path)
    with pytest.raises(LeaveError):
        fit(uri, None, leave_after=3)
    assert "prepared" not in open_manifest(uri).extra
    fit(uri, MUSIC)
    assert open_manifest(uri).extra["prepared"] == MUSIC


def test_an_older_checkpoint_is_asked_for_its_tokenizer() -> None:
    older: list[dict[str, Any]] = [{}, {"model": {}}, {"model": {"tokenizer": "t" * 64}}]
    for extra in older:
        check(extra, MUSIC, "t" * 64, "v1")
    with pytest.raises(RefusedError, match=r"(?s)v1 .*tokenizer: u{12} then, t{12} now.*versions of miditok"):
        check({"model": {"tokenizer": "u" * 64}}, MUSIC, "t" * 64, "v1")
    known = {"prepared": MUSIC, "model": {"tokenizer": "u" * 64}}
    check(known, MUSIC, "t" * 64, "v2")  # another image wrote the tokenizer's file, with the same meanings


def test_what_the_refusal_names() -> None:
    other: Any = {**MUSIC, "digest": "f" * 64, "vocabulary": "w" * 64}
    with pytest.raises(RefusedError, match=r"meaning of the tokens: v{12} then, w{12} now\n  digest: "):
        check({"prepared": MUSIC}, other, None, "v1")
    with pytest.raises(RefusedError, match="train: 1,234 pieces"):
        check(
            {"prepared": {"digest": "f", **{k: MUSIC[k] for k in ("train", "validation")}}}, MORE, None, "v1"
        )


def experiment(folder: Path, music: Path) -> dict[str, Any]:
    """Of a very small model, trained for a few steps."""
    return {
        "seed": 1,
        "data": {
            "source": {"midi": str(music)},
            "tokenizer": {"velocities": 1},
            "split": {"validation": 0.2},
            "sequence_length": 16,
            "cache": str(folder / "cache"),
            "workers": 1,
        },
        "model": {"dim": 16, "layers": 1, "heads": 2},
        "engine": {
            "steps": 2,
            "device": "cpu",
            "batch": {"global_batch": 4, "shards": 2},
            "optimizer": {"warmup_steps": 1},
        },
        "checkpoint": {"every": 1},
        "samples": {"count": 0},
    }


def start(folder: Path, wanted: dict[str, Any], name: str = "rank", **env: str) -> subprocess.Popen[str]:
    """A rank as its agent starts it."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(wanted))
    return subprocess.Popen(
        [sys.executable, "-m", "aurl_trainer", "train", str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", str(Env.RUN_DIR): str(folder / "run"), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.processes
def test_a_run_whose_music_was_added_to_is_refused_until_it_is_back(tmp_path: Path) -> None:
    music = write_music(tmp_path / "midi", 6)
    (tmp_path / "run").mkdir()
    wanted = experiment(tmp_path, music)

    def rank() -> tuple[int, str]:
        process = start(tmp_path, wanted)
        said, _ = process.communicate(timeout=200)
        return process.returncode, said

    code, said = rank()
    assert code == 0, said
    write_music(tmp_path / "more", 7)
    added = (tmp_path / "more" / "piece-6.mid").rename(music / "piece-6.mid")
    code, said = rank()
    assert code == ExitCode.FINAL and "was trained on other music than there is now" in said, said
    added.unlink()
    code, said = rank()
    assert code == 0, said


def test_all_ranks_with_the_same_music_agree_whatever_its_key() -> None:
    compare([Here(MUSIC, "k", "/cache/k", "a")])
    compare([Here(MUSIC, key, f"/cache/{key}", key) for key in ("k", "k", "other versions of the libraries")])


def test_ranks_with_other_music_are_named_with_what_to_do() -> None:
    nodes = [
        Here(MUSIC, "k", "/a/k", "node-a"),
        Here(MUSIC, "k", "/a/k", "node-a"),
        Here(MORE, "k", "/b/k", ""),
    ]
    with pytest.raises(DataError) as same_key:
        compare(nodes)
    assert str(same_key.value).splitlines() == [
        "the ranks have not prepared the same music:",
        "  rank 0 of node-a, /a/k: digest dddddddddddd",
        "  rank 2, /b/k: digest eeeeeeeeeeee",
        "  train: 1,234 pieces, 5,000 samples, 90,000 tokens on rank 0, "
        "1,235 pieces, 5,003 samples, 90,100 tokens on rank 2",
        "It was made of the same files, so what one node keeps is wrong: remove these folders, "
        "and music/k below checkpoint.uri, and resume",
    ]
    with pytest.raises(DataError, match=r"Give all nodes the same files in data\.source, and the same image"):
        compare([*nodes, Here(MORE, "l", "/b/l", "node-b")])


@pytest.mark.processes
def test_no_world_trains_on_two_kinds_of_music(tmp_path: Path) -> None:
    music, ranks = write_music(tmp_path / "midi", 6), []
    (tmp_path / "run").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    good = prepare(_data(tmp_path / "0", music), 1).folder
    (music / "piece-0.mid").unlink()
    bad = prepare(_data(tmp_path / "1", music), 1).folder
    write_music(tmp_path / "midi", 6)
    # As if a file had been left out when what has this key was made.
    meta = bad / "meta.json"
    meta.write_text(
        meta.read_text().replace(bad.name.removeprefix("prepared-"), good.name.removeprefix("prepared-"))
    )
    bad.rename(bad.with_name(good.name))
    for rank in range(2):
        wanted = experiment(tmp_path / str(rank), music)
        env = {**world, "RANK": str(rank), "LOCAL_RANK": "0"}
        ranks.append(start(tmp_path, wanted, f"rank-{rank}", **env))
    for rank, process in enumerate(ranks):
        said, _ = process.communicate(timeout=400)
        assert process.returncode == ExitCode.FINAL, said
        assert "the ranks have not prepared the same music" in said, f"rank {rank}: {said}"
        assert "remove these folders" in said


def _data(folder: Path, music: Path) -> DataConfig:
    return DataConfig.model_validate(experiment(folder, music)["data"])
