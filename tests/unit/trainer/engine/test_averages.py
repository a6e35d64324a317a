"""Averaged weights: the arithmetic, and that a loss of the machine changes no bit of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.checkpoint.loading import load_weights, open_manifest
from aurl_trainer.checkpoint.weights import part_of
from aurl_trainer.config.average import AverageConfig
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.config.losses import LossConfig
from aurl_trainer.engine.evaluation import evaluate
from aurl_trainer.engine.parallel import World
from aurl_trainer.engine.precision import Precision
from aurl_trainer.engine.randomness import seed_all
from aurl_trainer.engine.state.averages import AveragedWeights
from aurl_trainer.engine.trainer import AdvancedTrainer
from aurl_trainer.errors import LeaveError
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from tests.unit.trainer.engine.corpus import Windows
from tests.unit.trainer.engine.runs import STEPS, Watch, losses, make_experiment


def averaged(config: AverageConfig, values: list[float]) -> AveragedWeights:
    """The average of a model of one weight that had these values after its steps."""
    model = nn.Linear(1, 1, bias=False)
    average = AveragedWeights(model, config)
    for step, value in enumerate(values, 1):
        with torch.no_grad():
            model.weight.fill_(value)
        average.stepped(step)
    return average


def value(average: AveragedWeights) -> float:
    return average.module.state_dict()["weight"].item()  # type: ignore[no-any-return]


def test_swa_is_the_mean_and_ema_forgets() -> None:
    assert value(averaged(AverageConfig(kind="swa"), [1, 2, 6])) == pytest.approx(3)
    ema = averaged(AverageConfig(kind="ema", decay=0.75), [1, 2, 6])
    assert value(ema) == pytest.approx(0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 6)


def test_start_and_every_say_which_steps_count() -> None:
    config = AverageConfig(kind="swa", start=2, every=2)
    average = averaged(config, [100, 100, 100, 5, 100, 7])
    assert (average.updates, value(average)) == (2, pytest.approx(6)), "steps 4 and 6 count"
    before = averaged(config, [100, 100])
    model = nn.Linear(1, 1)
    assert before.updates == 0 and before.judged(model) is model, "nothing is averaged yet"
    assert before.capture() == {}
    assert average.judged(model) is average.module
    unused = averaged(AverageConfig(kind="swa", use=False), [1])
    assert unused.judged(model) is model


def experiment(**average: Any) -> Experiment:
    return make_experiment(average=AverageConfig(**average))


def trainer(uri: str, watch: Watch, wanted: Experiment) -> tuple[AdvancedTrainer, MusicTransformerVAEGAN]:
    data = Windows()
    seed_all(wanted.seed, "weights")
    model = MusicTransformerVAEGAN(wanted.model, data.vocab, data.pad_id, data.sequence_length)
    checkpointer = Checkpointer(
        uri,
        run="test",
        fingerprint=wanted.identity(),
        settings=wanted.checkpoint,
        rank=0,
        world=1,
    )
    made = AdvancedTrainer(
        model,
        ComprehensiveLossFramework(LossConfig()),
        train=data,
        validation=Windows(count=6, seed=9),
        runtime=watch.runtime,
        checkpointer=checkpointer,
    )
    return made.configure(wanted), model


def saved_average(uri: str, wanted: Experiment) -> dict[str, torch.Tensor]:
    data = Windows()
    model = MusicTransformerVAEGAN(wanted.model, data.vocab, data.pad_id, data.sequence_length)
    load_weights(uri, model, weights="average")
    return dict(model.state_dict())


@pytest.fixture(autouse=True)
def clean() -> Any:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "average",
    [
        {"kind": "ema", "decay": 0.9},
        {"kind": "swa", "start": 3, "every": 2},
        {"kind": "ema", "decay": 0.9, "start": 8},
    ],
    ids=["ema", "swa", "begins after the loss"],
)
def test_an_average_survives_a_loss_to_the_bit(tmp_path: Path, average: dict[str, Any]) -> None:
    wanted = experiment(**average)
    calm, first, second = Watch(), Watch(leave_after=5), Watch()
    trainer(str(tmp_path / "calm"), calm, wanted)[0].fit()
    with pytest.raises(LeaveError):
        trainer(str(tmp_path / "left"), first, wanted)[0].fit()
    trainer(str(tmp_path / "left"), second, wanted)[0].fit()
    assert 0 < second.of("start")[0]["resumed_from"] < STEPS, "nothing was lost, so nothing is shown"
    assert not second.of("start")[0]["initial"] and second.of("start")[0]["loaded"]["content"] > 0
    expected = saved_average(str(tmp_path / "calm"), wanted)
    found = saved_average(str(tmp_path / "left"), wanted)
    assert all(torch.equal(expected[k], found[k]) for k in expected), "the average differs after the loss"
    told = {(r["step"], r["val_loss"]) for r in first.of("evaluation") + second.of("evaluation")}
    assert told == {(r["step"], r["val_loss"]) for r in calm.of("evaluation")}
    assert any("memory peaked at" in line for line in second.said), "what loading took is not told"


def test_training_itself_does_not_notice_and_the_average_is_what_is_judged(tmp_path: Path) -> None:
    plain, watched = Watch(), Watch()
    with_average, model = trainer(str(tmp_path / "ema"), watched, experiment(kind="ema", decay=0.9))
    trainer(str(tmp_path / "plain"), plain, experiment())[0].fit()
    outcome = with_average.fit()
    assert losses(plain) == losses(watched), "the average changed the training"
    assert outcome.evaluation is not None
    judged = MusicTransformerVAEGAN(model.config, model.vocab_size, model.pad_id, model.max_length)
    manifest = load_weights(str(tmp_path / "ema"), judged)
    assert part_of(manifest, "judged") == "average"
    for weights, alike in ((judged, True), (model, False)):
        nll = evaluate(
            weights,
            Windows(count=6, seed=9),
            count=6,
            batch=4,
            world=World.alone("cpu"),
            precision=Precision("fp32", torch.device("cpu")),
        ).nll
        assert (nll == outcome.evaluation.nll) is alike


def test_older_runs_go_on_and_an_average_is_fixed_at_the_first_start(tmp_path: Path) -> None:
    assert "average" not in experiment().identity()["engine"], "a run from before averages would be refused"
    ema = experiment(kind="ema").identity()
    assert ema != experiment(kind="swa").identity()
    assert ema == experiment(kind="ema", use=False).identity(), "how it is judged may change"


class Counter:
    """A technique with a state: counts how often the loop went through `stepped`."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def state(self) -> dict[str, Any]:
        return {"patience": 3, "history": [1.5, float("inf")], "stage": ("warm", 2)}

    def restore(self, state: dict[str, Any]) -> None:
        self.seen = state


def test_named_states_come_back_and_one_that_is_only_there_or_here_is_told(tmp_path: Path) -> None:
    wanted = experiment()
    uri = str(tmp_path)

    def build(watch: Watch, **states: Any) -> AdvancedTrainer:
        made, _ = trainer(uri, watch, wanted)
        return AdvancedTrainer(
            made._model,
            ComprehensiveLossFramework(LossConfig()),
            train=Windows(),
            runtime=watch.runtime,
            checkpointer=made._checkpointer,
            states=states,
            about={"vocab_size": 20},
        ).configure(wanted)

    build(Watch(), stopping=Counter(), gone=Counter()).fit()
    extra = open_manifest(uri).extra
    assert extra["model"] == {"vocab_size": 20} and set(extra["states"]) == {"scaler", "stopping", "gone"}
    watch, stopping = Watch(), Counter()
    build(watch, stopping=stopping, curriculum=Counter()).fit()
    assert stopping.seen == Counter().state()
    said = "\n".join(watch.said)
    assert "holds no state of curriculum; it begins anew" in said
    assert "state of gone is left out" in said
