"""Presets load, overrides merge, and the identity holds what decides a result."""

from __future__ import annotations

import pytest

from aurl_trainer.config.document import Document
from aurl_trainer.config.experiment import Experiment, load_config, presets, resolve
from aurl_trainer.errors import ConfigError


@pytest.mark.parametrize("name", presets())
def test_presets_are_valid_with_and_without_the_ending(name: str) -> None:
    assert load_config(name) == load_config(f"{name}.yaml")
    assert load_config(name).from_preset == name, "checkpoints could not be found by their preset"


def test_the_presets_that_people_are_told_of_are_there() -> None:
    assert {"quick_test", "high_quality"} <= set(presets())


def test_an_unknown_preset_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no preset named 'nope'; there are: .*quick_test"):
        resolve({"preset": "nope"})


def test_overrides_are_laid_on_the_preset_field_by_field() -> None:
    raw = resolve({"preset": "quick_test", "overrides": {"model": {"layers": 1}, "seed": 9}})
    experiment = Document(raw, "x").validate(Experiment)
    base = load_config("quick_test")
    assert (experiment.model.layers, experiment.seed) == (1, 9)
    assert experiment.model.dim == base.model.dim
    assert experiment.engine == base.engine


def test_another_source_replaces_the_presets_source() -> None:
    raw = resolve({"preset": "quick_test", "overrides": {"data": {"source": {"midi": "/x"}}}})
    source = Document(raw, "x").validate(Experiment).data.source
    assert (source.midi, source.music21) == ("/x", None)


def test_keys_beside_preset_are_refused() -> None:
    with pytest.raises(ConfigError, match="seed: beside preset there is only overrides"):
        resolve({"preset": "quick_test", "seed": 3})


def test_places_and_intervals_do_not_change_the_identity_but_results_do() -> None:
    base = load_config("quick_test")
    moved = base.model_copy(
        update={
            "checkpoint": base.checkpoint.model_copy(update={"uri": "s3://elsewhere", "every": 7}),
            "monitor": base.monitor.model_copy(update={"log_every": 3}),
            "data": base.data.model_copy(update={"cache": "/elsewhere", "workers": 5}),
            "init_from": "s3://bucket/other@best",
            "from_preset": None,
        }
    )
    assert moved.fingerprint() == base.fingerprint()
    assert base.model_copy(update={"seed": 99}).fingerprint() != base.fingerprint()


def test_what_a_run_begins_with_names_a_checkpoint() -> None:
    raw = resolve({"preset": "quick_test", "overrides": {"init_from": "s3://b/other@best:val_nll"}})
    assert Document(raw, "x").validate(Experiment).init_from == "s3://b/other@best:val_nll"
    with pytest.raises(ConfigError, match=r"x: init_from: .*'no tag' names no checkpoint; say latest"):
        Document(raw | {"init_from": "s3://b/other@no tag"}, "x").validate(Experiment)


def test_runs_from_before_exactness_go_on_and_exact_ones_keep_their_threads() -> None:
    base = load_config("quick_test")
    assert "reproducibility" not in base.identity()["engine"], "older checkpoints do not have it"
    engine = base.engine.model_copy(update={"reproducibility": "exact", "threads": 1})
    exact = base.model_copy(update={"engine": engine})
    assert exact.fingerprint() != base.fingerprint()
    other = exact.model_copy(update={"engine": engine.model_copy(update={"threads": 2})})
    assert other.fingerprint() != exact.fingerprint(), "the number of threads decides bits"
