"""Music metrics are a checkpoint's own: measured with its weights, kept, found, and chosen by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from symusic import Note, Score, TimeSignature, Track
from torch import nn

from aurl_trainer.checkpoint.loading import load_weights
from aurl_trainer.config.checkpoint import CheckpointConfig, KeepConfig
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.config.monitor import MonitorConfig, SamplesConfig
from aurl_trainer.config.reference import Exact
from aurl_trainer.engine.runtime import Music
from aurl_trainer.errors import LeaveError
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from aurl_trainer.model.sampling import generate
from aurl_trainer.music.metrics import measure_all
from aurl_trainer.store.catalog.found import find
from aurl_trainer.store.catalog.scan import Run
from aurl_trainer.store.catalog.where import Where
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.engine.corpus import Windows
from tests.unit.trainer.engine.runs import STEPS, Watch, losses, make_experiment
from tests.unit.trainer.engine.test_averages import clean, trainer

assert clean  # the fixture

ALL = KeepConfig(latest=99, grace_seconds=0)


def experiment(keep: KeepConfig = ALL) -> Experiment:
    changed: dict[str, Any] = {
        "monitor": MonitorConfig(evaluate_every=3),
        "samples": SamplesConfig(every=3, count=2),
        "checkpoint": CheckpointConfig(every=3, keep=keep),
    }
    return make_experiment().model_copy(update=changed)


def write_music(model: nn.Module, step: int) -> list[Any]:
    """What the model writes, a token being a pitch of a quarter."""
    assert isinstance(model, MusicTransformerVAEGAN)
    pieces = []
    for row in generate(model, [[1], [5]], 24, seed=step):
        score: Any = Score(4)
        score.time_signatures.append(TimeSignature(0, 4, 4))
        track: Any = Track("notes")
        for place, token in enumerate(row):
            track.notes.append(Note(4 * place, 4, 60 + token, 80))
        score.tracks.append(track)
        pieces.append(score)
    return pieces


def sampling(watch: Watch, written: list[int]) -> Watch:
    def sample(model: nn.Module, step: int) -> Music:
        def write() -> list[str]:
            written.append(step)
            return [f"step-{step}.mid"]

        return Music(measure_all(write_music(model, step)), write)

    watch.runtime = replace(watch.runtime, sample=sample)
    return watch


def kept(uri: str) -> dict[int, dict[str, float | None]]:
    """The metrics of the newest checkpoint of each step."""
    store = RunStore(Location(uri))
    return {n.step: dict(store.manifest(n).metrics) for n in store.valid()}


def test_they_belong_to_the_weights_that_wrote_the_music(tmp_path: Path) -> None:
    uri, wanted, written = str(tmp_path), experiment(), list[int]()
    watch = sampling(Watch(), written)
    trainer(uri, watch, wanted)[0].fit()
    assert written == [3, 6, 9, STEPS], "music was not written once after each sampling"
    assert list(kept(uri)) == written
    data = Windows()
    for name in RunStore(Location(uri)).valid():
        fresh = MusicTransformerVAEGAN(wanted.model, data.vocab, data.pad_id, data.sequence_length)
        load_weights(uri, fresh, Exact(str(name)))
        expected = measure_all(write_music(fresh.eval(), name.step))
        found = kept(uri)[name.step]
        assert found.pop("val_nll") is not None
        assert found == expected, f"step {name.step} has the metrics of other weights"
    assert [r["metrics"] for r in watch.of("samples")] == [
        {k: v for k, v in m.items() if k != "val_nll"} for m in kept(uri).values()
    ]
    assert watch.progress[-1].music == watch.of("samples")[-1]["metrics"]


def test_sampling_and_measuring_change_no_bit_of_training(tmp_path: Path) -> None:
    plain, watched = Watch(), sampling(Watch(), [])
    _, one = run = trainer(str(tmp_path / "plain"), plain, experiment())
    run[0].fit()
    made, other = trainer(str(tmp_path / "music"), watched, experiment())
    made.fit()
    assert losses(plain) == losses(watched)
    weights = other.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in one.state_dict().items())
    assert set(kept(str(tmp_path / "plain"))[STEPS]) == {"val_nll"}


def test_retention_chooses_by_them_and_find_finds_them(tmp_path: Path) -> None:
    by = {"val_nll": 0.01, "scale_consistency": -1.0}
    trainer(str(tmp_path / "all"), sampling(Watch(), []), experiment())[0].fit()
    some = experiment(KeepConfig(latest=1, best=1, by=by, grace_seconds=0))
    trainer(str(tmp_path / "some"), sampling(Watch(), []), some)[0].fit()
    every = kept(str(tmp_path / "all"))
    rating = {step: sum(weight * (m[k] or 0.0) for k, weight in by.items()) for step, m in every.items()}
    best = min(rating, key=lambda step: (rating[step], -step))
    assert sorted(kept(str(tmp_path / "some"))) == sorted({best, STEPS}), rating
    limit = sorted(m["scale_consistency"] or 0.0 for m in every.values())[1]
    found = find(Run("all", Location(str(tmp_path / "all"))))
    chosen = Where.parse(f"scale_consistency > {limit!r}").select(list(found.entries))
    assert [e.step for e in chosen] == [s for s in every if (every[s]["scale_consistency"] or 0.0) > limit]
    assert found.read == 0, "the index does not hold the metrics"


def test_a_world_that_leaves_before_it_samples_is_made_up_for(tmp_path: Path) -> None:
    calm, left, wanted, written = str(tmp_path / "calm"), str(tmp_path / "left"), experiment(), list[int]()
    trainer(calm, sampling(Watch(), []), wanted)[0].fit()
    with pytest.raises(LeaveError):
        trainer(left, sampling(Watch(leave_after=5), written), wanted)[0].fit()
    assert written == [3]
    trainer(left, sampling(Watch(), written), wanted)[0].fit()
    assert written == [3, 6, 9, STEPS]
    assert kept(left) == kept(calm), "the loss changed what checkpoints are chosen by"
