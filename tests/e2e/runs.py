"""Real runs for end-to-end tests: music made here, jobs of a small model, what a run recorded and saved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from symusic import Note, Score, Track

from aurl_trainer.monitor.records import read_records
from aurl_trainer.store.location import Location
from aurl_trainer.store.run_store import RunStore

AURL = [sys.executable, "-m", "aurl_operator"]


def environment() -> dict[str, str]:
    """One thread a rank, so that a sum has one order."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def write_music(folder: Path, pieces: int = 12) -> Path:
    """`pieces` MIDI files of scales and broken chords, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(pieces):
        score = Score(480)
        track = Track(program=0)
        for beat in range(64):
            pitch = 50 + number + (beat * (2 + number % 3)) % 24
            track.notes.append(Note(time=beat * 240, duration=240, pitch=pitch, velocity=80))
            if beat % 4 == 0:
                track.notes.append(Note(time=beat * 240, duration=960, pitch=pitch - 12, velocity=60))
        score.tracks.append(track)
        score.dump_midi(folder / f"piece-{number}.mid")
    return folder


def job(folder: Path, music: Path, *, nodes: Any, steps: int, **training: Any) -> Path:
    """A job file for a very small model over `music`; `training` goes over the experiment's rooms."""
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
        "checkpoint": {"every": 5, "keep": {"latest": 3, "best": 1}},
        "monitor": {"audit": True, "evaluate_every": 20, "log_every": 20},
        "samples": {"count": 0},
    }
    for room, values in training.items():
        experiment[room] = {**experiment.get(room, {}), **values} if isinstance(values, dict) else values
    path = folder / "job.yaml"
    quick = {"initialSeconds": 1, "maxSeconds": 1}
    spec = {
        "nodes": nodes,
        "training": experiment,
        "recovery": {"crashes": {"limit": 50, "backoff": quick}, "nodeLost": {"backoff": quick}},
    }
    document = {
        "apiVersion": "aurl.dev/v1alpha1",
        "kind": "AurlTrainingJob",
        "metadata": {"name": "tiny"},
        "spec": spec,
    }
    path.write_text(yaml.safe_dump(document))
    return path


def start(job_file: Path, run: Path, *options: str) -> subprocess.Popen[bytes]:
    """`aurl run` in the background, its output in a file beside the run."""
    with Path(f"{run}.log").open("ab") as log:
        return subprocess.Popen(
            [*AURL, "run", str(job_file), "--run-dir", str(run), *options],
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip


def log(run: Path) -> str:
    """The end of what `aurl run` printed, for a failing test."""
    return Path(f"{run}.log").read_text(errors="replace")[-6000:]


@dataclass(frozen=True)
class Trace:
    """What a run did: by step, the sample ids of all ranks and the loss; and its final weights.

    `repeats` holds every record of a step that was done more than once.
    """

    ids: dict[int, list[int]]
    loss: dict[int, float]
    disagreements: list[str]
    weights: dict[str, list[str]]
    generations: int


def trace(run: Path) -> Trace:
    """Read a finished run's records and its last checkpoint's hashes."""
    by_pass: dict[tuple[int, int], dict[int, dict[str, Any]]] = {}
    worlds: dict[int, int] = {}
    for record in read_records(run / "records"):
        generation = record["generation"]
        if record["kind"] == "start":
            worlds[generation] = record["world"]
        if record["kind"] == "audit":
            by_pass.setdefault((record["step"], generation), {})[record["rank"]] = record
    ids: dict[int, list[int]] = {}
    loss: dict[int, float] = {}
    disagreements = []
    for (step, generation), ranks in sorted(by_pass.items()):
        if len(ranks) < worlds[generation]:
            continue  # killed in this very step: some rank had not written yet
        samples = sorted(i for record in ranks.values() for i in record["ids"])
        losses = {record["loss"] for record in ranks.values()}
        if len(losses) != 1:
            disagreements.append(f"step {step}: ranks of generation {generation} differ: {losses}")
        if step in ids and (ids[step], loss[step]) != (samples, min(losses)):
            disagreements.append(f"step {step} differs in generation {generation}")
        ids[step], loss[step] = samples, min(losses)
    store = RunStore(Location(str(run / "checkpoints")))
    manifest = store.manifest(store.valid()[-1])
    weights = {
        name: [chunk.hash for chunk in tensor.chunks]
        for name, tensor in manifest.tensors.items()
        if name.startswith("model.")
    }
    return Trace(ids, loss, disagreements, weights, len(worlds))


def state(run: Path) -> dict[str, Any]:
    """The operator's memory of a run."""
    found: dict[str, Any] = json.loads((run / "state.json").read_text())
    return found
