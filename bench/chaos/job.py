"""Jobs of a very small model over music made here, and `aurl run` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from symusic import Note, Score, Track

AURL = [sys.executable, "-m", "aurl_operator"]


def environment() -> dict[str, str]:
    """One thread a rank, so that a sum has one order."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def write_music(folder: Path, pieces: int = 12) -> Path:
    """`pieces` MIDI files of scales and broken chords, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(pieces):
        score: Any = Score(480)
        track: Any = Track(program=0)
        for beat in range(64):
            pitch = 50 + number + (beat * (2 + number % 3)) % 24
            track.notes.append(Note(time=beat * 240, duration=240, pitch=pitch, velocity=80))
            if beat % 4 == 0:
                track.notes.append(Note(time=beat * 240, duration=960, pitch=pitch - 12, velocity=60))
        score.tracks.append(track)
        score.dump_midi(folder / f"piece-{number}.mid")
    return folder


def job(folder: Path, music: Path, *, nodes: Any, steps: int, **training: Any) -> Path:
    """A job file for a very small model over `music`; `training` goes over the experiment's rooms.

    It comes back from any number of losses, at once.
    """
    experiment: dict[str, Any] = {
        "seed": 5,
        "data": {
            "source": {"midi": str(music)},
            "tokenizer": {"velocities": 4},
            "split": {"validation": 0.2},
            "sequence_length": 32,
            "cache": str(folder / "cache"),
        },
        "model": {"dim": 32, "layers": 2, "heads": 2, "dropout": 0.1},
        "engine": {
            "steps": steps,
            "batch": {"global_batch": 8, "shards": 4},
            "optimizer": {"warmup_steps": 5},
            "device": "cpu",
        },
        "checkpoint": {"every": 5, "keep": {"latest": 3, "best": 1, "grace_seconds": 0}},
        "monitor": {"audit": True, "evaluate_every": 20, "log_every": 20},
        "samples": {"count": 0},
    }
    for room, values in training.items():
        experiment[room] = {**experiment.get(room, {}), **values} if isinstance(values, dict) else values
    at_once = {"backoff": {"initialSeconds": 0, "maxSeconds": 0}}
    endless = {"limit": 1_000_000, **at_once}
    spec = {
        "nodes": nodes,
        "training": experiment,
        "recovery": {
            "preemptions": at_once,
            "nodeLost": at_once,
            "crashes": endless,
            "hang": endless,
            "outOfMemory": endless,
        },
    }
    document = {
        "apiVersion": "aurl.dev/v1alpha1",
        "kind": "AurlTrainingJob",
        "metadata": {"name": "tiny"},
        "spec": spec,
    }
    path = folder / "job.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document))
    return path


def start(job_file: Path, run: Path, options: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """`aurl run` in the background, its output in a file beside the run."""
    with log_file(run).open("ab") as log:
        return subprocess.Popen(
            [*AURL, "run", str(job_file), "--run-dir", str(run), *options],
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip


def log_file(run: Path) -> Path:
    """What `aurl run` prints."""
    return Path(f"{run}.log")


def log(run: Path) -> str:
    """The end of what `aurl run` printed."""
    return log_file(run).read_text(errors="replace")[-6000:]
