"""A run that goes on writes its certificate: real training, real checkpoints, real record files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from aurl_trainer.checkpoint.loading import load_weights, open_manifest
from aurl_trainer.contract import Cause
from aurl_trainer.engine.exact.platform import platforms, summary
from aurl_trainer.engine.parallel import World
from aurl_trainer.engine.randomness import make_deterministic
from aurl_trainer.engine.resume.past import read_past
from aurl_trainer.engine.resume.weights import examine
from aurl_trainer.engine.survival.preemption import Notice
from aurl_trainer.errors import LeaveError
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from aurl_trainer.monitor.records import RecordWriter, read_records
from tests.unit.trainer.engine.corpus import Windows
from tests.unit.trainer.engine.runs import Short, Watch, make_experiment, run, wait_for_saves


class Recording(Watch):
    """Writes records as `aurl_trainer train` does."""

    def __init__(self, folder: Path, leave_after: int | None = None, notice: Notice | None = None) -> None:
        super().__init__(leave_after, notice=notice)
        self.folder = folder
        make_deterministic(True)  # a setting of kernels, too
        versions = {"PyTorch": torch.__version__, **summary(platforms(World.alone("cpu")))}
        self.versions = versions
        self.runtime = dataclasses.replace(
            self.runtime, past=functools.partial(read_past, folder, None), surroundings=versions
        )

    def open(self, generation: int) -> Watch:
        super().open(generation)
        self.writer = RecordWriter(self.folder, generation, 0)
        self.write("setup", versions=self.versions)
        return self

    def write(self, kind: str, **fields: Any) -> None:
        super().write(kind, **fields)
        self.writer.write(kind, **fields)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of a run that was lost two steps after its last checkpoint."""
    wait_for_saves(monkeypatch)
    with pytest.raises(LeaveError):
        run(str(tmp_path), Recording(tmp_path / "records", leave_after=5, notice=Short()))
    assert max(r["step"] for r in read_records(tmp_path / "records", {"step"})) == 6
    return tmp_path


def resumed(place: Path) -> Recording:
    watch = Recording(place / "records")
    run(str(place), watch)
    return watch


def test_steps_done_again_are_certified_to_the_bit(lost: Path) -> None:
    manifests = {p.stem: hashlib.sha256(p.read_bytes()).hexdigest() for p in (lost / "manifests").iterdir()}
    watch = resumed(lost)
    (resume,), (certificate,) = watch.of("resume"), watch.of("certificate")
    assert resume["step"] == 4
    assert resume["manifest"] == f"sha256:{manifests[resume['checkpoint']]}"
    assert resume["weights_match"] is True and len(resume["weights"]) == 71
    assert (certificate["verdict"], certificate["steps_redone"]) == ("equal", 2), certificate
    assert [c["step"] for c in certificate["compared"]] == [5, 6]
    assert all(c["bitwise"] and c["samples"] and c["loss"] == c["before"] for c in certificate["compared"])
    assert any("2 steps done again, 2 compared" in line and "every bit" in line for line in watch.said)
    assert watch.progress[-1].noted == []


def test_on_a_machine_with_other_instructions_the_last_bits_are_no_incident(
    lost: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # read at torch's start: the losses stay the same
    _change_step_6(lost, "loss")
    watch = resumed(lost)
    (certificate,) = watch.of("certificate")
    assert certificate["verdict"] == "close", certificate
    assert [c["bitwise"] for c in certificate["compared"]] == [False, False]
    assert watch.progress[-1].noted == []


def _change_step_6(lost: Path, field: str) -> None:
    """On record, its loss is another in the last bit, or its samples are others."""
    (path,) = (lost / "records").glob("gen-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "step" and line["step"] == 6:
            line[field] = line["loss"] * (1 + 2**-52) if field == "loss" else "8:0:0"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("field", ["loss", "samples"])
def test_a_step_that_comes_out_otherwise_is_an_incident(lost: Path, field: str) -> None:
    _change_step_6(lost, field)
    watch = resumed(lost)
    (certificate,) = watch.of("certificate")
    assert certificate["verdict"] == "differs"
    assert "step 6" in certificate["problems"][0]
    (told,) = watch.progress[-1].noted
    assert (told.cause, told.step) == (Cause.RESUME_MISMATCH, 4)
    assert "step 6" in told.message
    third = resumed(lost)
    assert [n.id for n in third.progress[-1].noted] == [told.id], "a later generation tells it again"


def test_after_a_save_on_leaving_there_is_nothing_to_do_again(tmp_path: Path) -> None:
    with pytest.raises(LeaveError):
        run(str(tmp_path), Recording(tmp_path / "records", leave_after=5))
    (certificate,) = resumed(tmp_path).of("certificate")
    assert (certificate["verdict"], certificate["steps_redone"]) == ("nothing to compare", 0)


def test_a_first_start_needs_no_certificate(tmp_path: Path) -> None:
    watch = resumed(tmp_path)
    assert watch.of("resume") == watch.of("certificate") == []


def test_weights_that_changed_behind_the_load_are_named(lost: Path) -> None:
    manifest = open_manifest(str(lost))
    experiment, data = make_experiment(), Windows()
    model = MusicTransformerVAEGAN(experiment.model, data.vocab, data.pad_id, data.sequence_length)
    load_weights(str(lost), model)
    state = dict(model.state_dict())
    whole = examine(state, manifest, "model")
    assert whole.problem is None
    name = sorted(state)[-1]
    state[name] = state[name].clone()
    state[name].view(-1)[-1].add_(1e-3)
    changed = examine(state, manifest, "model")
    assert changed.problem == f"{name} as loaded is not what {manifest.name} holds"
    assert changed.digest != whole.digest
