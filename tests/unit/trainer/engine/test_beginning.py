"""A run that begins with another's weights says so, in its records and in every checkpoint of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aurl_trainer.checkpoint.averaging import Parent, mean, save_mean
from aurl_trainer.checkpoint.initial import Initialised, load_initial
from aurl_trainer.checkpoint.loading import open_manifest
from aurl_trainer.config.losses import LossConfig
from aurl_trainer.config.reference import Latest
from aurl_trainer.engine.trainer import AdvancedTrainer
from aurl_trainer.errors import LeaveError, RefusedError
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.engine.corpus import Windows
from tests.unit.trainer.engine.runs import Watch
from tests.unit.trainer.engine.test_averages import clean, experiment, trainer

assert clean  # the fixture


def test_a_run_does_not_go_on_at_the_place_of_an_average(tmp_path: Path) -> None:
    """It has ended and is of the same configuration, and holds neither a position nor an optimizer."""
    other, place, wanted = str(tmp_path / "other"), str(tmp_path / "average"), experiment()
    trainer(other, Watch(), wanted)[0].fit()
    store = RunStore(Location(other))
    parents = [Parent(store.location, store.manifest(name), "model", other) for name in store.valid()[-2:]]
    save_mean(mean(parents), parents, place, [], None)
    before = RunStore(Location(place)).fences()
    with pytest.raises(RefusedError, match=r"holds an average.*initFrom"):
        trainer(place, Watch(), wanted)[0].fit()
    assert RunStore(Location(place)).fences() == before, "a generation was taken there"


def test_it_begins_once_and_says_with_whose_weights(tmp_path: Path) -> None:
    other, uri, wanted = str(tmp_path / "other"), str(tmp_path / "own"), experiment()
    trainer(other, Watch(), wanted)[0].fit()
    calls: list[int] = []

    def begin(watch: Watch) -> torch.nn.Module:
        made, model = trainer(uri, watch, wanted)

        def load() -> Initialised:
            calls.append(1)
            return load_initial(other, Latest(), model)

        AdvancedTrainer(
            model,
            ComprehensiveLossFramework(LossConfig()),
            train=Windows(),
            runtime=watch.runtime,
            checkpointer=made._checkpointer,
            initial=load,
        ).configure(wanted).fit()
        return model

    first, second = Watch(leave_after=3), Watch()
    with pytest.raises(LeaveError):
        begin(first)
    begun = first.of("start")[0]["initial"]
    assert begun["run"] == "test" and begun["step"] == 12 and begun["missing"] == []
    assert any(line.startswith("begins with the weights of test, step 12") for line in first.said)
    new = Watch()
    trainer(str(tmp_path / "plain"), new, wanted)[0].fit()
    assert first.of("step")[0]["loss"] < new.of("step")[0]["loss"], "it began with new weights"
    begin(second)
    assert calls == [1], "a run that has saved goes on from its own checkpoint"
    assert second.of("start")[0]["initial"] is None
    assert open_manifest(uri).extra["init_from"]["checkpoint"] == begun["checkpoint"]
