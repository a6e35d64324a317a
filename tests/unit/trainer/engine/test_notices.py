"""A notice that comes while the run waits for a save, or for what follows the last one, is heard there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from aurl_trainer.config.checkpoint import CheckpointConfig, KeepConfig
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.config.monitor import MonitorConfig
from aurl_trainer.contract import ExitCode, Phase
from aurl_trainer.engine import evaluation, saves
from aurl_trainer.engine.precision import Precision
from aurl_trainer.engine.randomness import seed_all
from aurl_trainer.engine.saves import Saves
from aurl_trainer.engine.survival.preemption import Notice
from aurl_trainer.errors import BrokenOffError, LeaveError
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from tests.unit.trainer.engine.corpus import Windows
from tests.unit.trainer.engine.runs import STEPS, Brief, Watch, make_experiment, run
from tests.unit.trainer.engine.test_saves import Slow
from tests.unit.trainer.engine.worlds import Worlds, world_of

pytestmark = pytest.mark.usefixtures("empty_store")

NEVER = STEPS + 1


class Noticed(Slow):
    """A node that gets a notice in a phase of saving at step `during`, once the store holds something up."""

    def __init__(self, place: str, during: int, **options: Any) -> None:
        # Whoever left without waiting may still save: each run has a place of its own.
        super().__init__(place=place, **options)
        self._during = during
        self.holding = False

    def _hold(self, number: int, kind: str, path: str) -> None:
        self.holding = True
        super()._hold(number, kind, path)
        self.holding = False

    def phase(self, phase: Phase, step: int) -> None:
        super().phase(phase, step)
        if phase is Phase.SAVE and step == self._during and self.reached.is_set():
            self.runtime.notice.given = True


def saving_every(steps: int) -> Experiment:
    """Waits for a save under way; keeps one checkpoint."""
    keep = KeepConfig(latest=1, best=0, grace_seconds=0)
    return make_experiment().model_copy(
        update={
            "checkpoint": CheckpointConfig(every=steps, busy="wait", keep=keep),
            "monitor": MonitorConfig(evaluate_every=0, log_every=4),
        }
    )


def told(watch: Slow) -> list[tuple[int, bool]]:
    return [(r["step"], r["ok"]) for r in watch.of("save")]


def test_it_ends_the_wait_before_a_save_and_the_last_save_is_made() -> None:
    watch = Noticed("notice-before", during=6, until=7)
    with pytest.raises(LeaveError) as error:
        run("faulty://notice-before", watch, saving_every(3))
    assert error.value.exit_code is ExitCode.PREEMPTED
    assert error.value.durable[0] == 7, "its agent tells what is durable"
    assert told(watch) == [(6, False), (3, True), (7, True)], "the notice was heard when step 3 was saved"
    left_out = watch.of("save")[0]
    assert left_out["skipped"], "to make room for the last save is no incident"
    assert left_out["message"] == "a node has to leave, and the save of step 3 is still under way"


def test_at_the_last_step_the_wait_for_the_save_before_ends_with_the_grace() -> None:
    watch = Noticed("notice-grace", during=STEPS, until=NEVER, at="s00000010", notice=Brief())
    with pytest.raises(LeaveError) as error:
        run("faulty://notice-grace", watch, saving_every(5))
    watch.let_go()
    assert (error.value.exit_code, error.value.durable[0]) == (ExitCode.PREEMPTED, 5)
    assert told(watch) == [(5, True), (10, False), (STEPS, False)]
    assert "no time left" in watch.of("save")[1]["message"]


def test_at_the_last_step_there_may_be_time_for_both() -> None:
    class Mended(Noticed):
        """The store answers again when the last save is waited for."""

        def phase(self, phase: Phase, step: int) -> None:
            if self.runtime.notice.given:
                self.let_go()
            super().phase(phase, step)

    watch = Mended("notice-both", during=STEPS, until=NEVER, at="s00000010")
    outcome, _ = run("faulty://notice-both", watch, saving_every(5))
    assert told(watch) == [(5, True), (10, True), (STEPS, True)]
    assert outcome.durable == STEPS, "the run is over: there is nothing to come back for"


def test_it_ends_the_wait_for_the_last_step_with_the_grace() -> None:
    watch = Noticed("notice-last", during=STEPS, until=NEVER, at=f"s{STEPS:08d}", notice=Brief())
    with pytest.raises(LeaveError) as error:
        run("faulty://notice-last", watch, saving_every(6))
    watch.let_go()
    assert error.value.exit_code is ExitCode.PREEMPTED
    assert told(watch) == [(6, True), (STEPS, False)]
    assert "no time left" in watch.of("save")[1]["message"]


class Soon(Notice):
    """Five seconds are left after a notice."""

    @property
    def left(self) -> float:
        return 5.0 if self.given else math.inf


class Evaluating(Watch):
    """A node that gets a notice while step `at` is evaluated."""

    def __init__(self, at: int, notice: Notice) -> None:
        super().__init__(notice=notice)
        self._at = at

    def phase(self, phase: Phase, step: int) -> None:
        self.runtime.notice.given |= phase is Phase.EVALUATE and step == self._at
        super().phase(phase, step)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """Evaluates after steps 6 and 12, asks before each batch, and saves at the end only."""
    monkeypatch.setattr(evaluation, "ASK", 1)
    return make_experiment().model_copy(
        update={
            "checkpoint": CheckpointConfig(every=100),
            "monitor": MonitorConfig(evaluate_every=6, log_every=4),
        }
    )


def evaluated(watch: Watch) -> list[int]:
    return [r["step"] for r in watch.of("evaluation")]


def test_it_breaks_off_an_evaluation_which_is_made_up_for_after_the_save(
    asked: Experiment, tmp_path: Path
) -> None:
    """An evaluation may take longer than the grace, with all steps since the last save at stake."""
    calm = Watch()
    _, weights = run(str(tmp_path / "calm"), calm, asked)
    uri, watch = str(tmp_path / "run"), Evaluating(6, Notice())
    with pytest.raises(LeaveError) as error:
        run(uri, watch, asked)
    assert error.value.exit_code is ExitCode.PREEMPTED and error.value.durable[0] == 6
    assert evaluated(watch) == [] and [(r["step"], r["ok"]) for r in watch.of("save")] == [(6, True)]
    after = Watch()
    _, resumed = run(uri, after, asked)
    assert evaluated(after) == evaluated(calm) and torch.equal(resumed, weights)


@pytest.mark.parametrize(("needed", "breaks_off"), [(1.0, False), (10.0, True)])
def test_the_evaluation_that_ends_a_run_has_what_time_its_save_does_not_need(
    asked: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: float, breaks_off: bool
) -> None:
    holds = Saves._holds
    monkeypatch.setattr(Saves, "needs", lambda self, step: 0.0 if holds(self, step) else needed)
    watch = Evaluating(STEPS, Soon())
    if not breaks_off:
        assert run(str(tmp_path / "run"), watch, asked)[0].durable == STEPS
        return
    with pytest.raises(LeaveError) as error:
        run(str(tmp_path / "run"), watch, asked)
    assert error.value.durable[0] == STEPS and evaluated(watch) == [6]
    after = Watch()
    assert run(str(tmp_path / "run"), after, asked)[0].durable == STEPS
    assert set(evaluated(after)) == {STEPS}


def _evaluates(rank: int, size: int, stops: bool) -> float | None:
    """Seven samples, one a batch: the last round has one for rank 0 alone. Rank 1 gets the notice."""
    evaluation.ASK = 1
    experiment, data = make_experiment(), Windows(count=7, seed=9)
    seed_all(1, "weights")
    model = MusicTransformerVAEGAN(experiment.model, data.vocab, data.pad_id, data.sequence_length)
    looks = iter(range(100))

    def stop() -> bool:
        return stops and rank == 1 and next(looks) == 1

    try:
        return evaluation.evaluate(
            model, data, count=7, batch=1, world=world_of(rank, size),
            precision=Precision("fp32", torch.device("cpu")), stop=stop,
        ).nll  # fmt: skip
    except BrokenOffError:
        return None


def test_all_ranks_break_off_an_evaluation_together(worlds: Worlds) -> None:
    (alone,) = worlds.run(1, _evaluates, False)
    assert worlds.run(3, _evaluates, False) == [alone] * 3
    assert worlds.run(2, _evaluates, True) == [None] * 2
    assert worlds.run(3, _evaluates, True) == [None] * 3


def test_it_ends_the_wait_for_what_follows_the_last_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saves, "TIDY_SECONDS", 0.0)

    class Removing(Noticed):
        def _hold(self, number: int, kind: str, path: str) -> None:
            self.runtime.notice.given |= self._meant(path)
            super()._hold(number, kind, path)

    watch = Removing("notice-after", during=NEVER, until=NEVER, at="removals/")
    outcome, _ = run("faulty://notice-after", watch, saving_every(6))
    assert watch.holding, "the run has waited until retention had ended"
    watch.let_go()
    assert (outcome.durable, told(watch)) == (STEPS, [(6, True), (STEPS, True)])
