"""The order of things in a run: resume, notice, evaluation, the end. One process, real checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from aurl_trainer.config.losses import LossConfig
from aurl_trainer.config.model import ModelConfig
from aurl_trainer.contract import Cause, ExitCode, Phase, Progress
from aurl_trainer.engine.trainer import AdvancedTrainer
from aurl_trainer.errors import LeaveError, RefusedError
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from tests.unit.trainer.engine.corpus import Windows
from tests.unit.trainer.engine.runs import STEPS, Short, Watch, losses, make_experiment, run, wait_for_saves

pytestmark = pytest.mark.usefixtures("empty_store")


def test_a_run_goes_through_its_steps_evaluates_saves_and_ends(tmp_path: Path) -> None:
    watch = Watch()
    outcome, _ = run(str(tmp_path), watch)
    assert outcome.step == STEPS
    assert outcome.evaluation is not None
    assert list(losses(watch)) == list(range(1, STEPS + 1))
    assert [r["step"] for r in watch.of("evaluation")] == [4, 8, 12, 12], (
        "every 4 steps, and all of it at last"
    )
    assert {3, 6, 9, 12} <= {r["step"] for r in watch.of("save") if r["ok"]}
    assert watch.progress[-1].step == STEPS
    assert watch.progress[-1].val_loss is not None
    assert [p.productive_seconds for p in watch.progress] == sorted(
        p.productive_seconds for p in watch.progress
    )


@pytest.mark.parametrize(("regroup", "code"), [(False, ExitCode.PREEMPTED), (True, ExitCode.REJOIN)])
def test_leaving_after_a_notice_or_for_a_new_world_loses_no_step(
    tmp_path: Path, regroup: bool, code: ExitCode
) -> None:
    calm = Watch()
    _, expected = run(str(tmp_path / "calm"), calm)

    first = Watch(leave_after=5, regroup=regroup)
    with pytest.raises(LeaveError) as left:
        run(str(tmp_path / "left"), first)
    assert left.value.exit_code is code
    last = first.of("save")[-1]
    assert last["ok"]
    assert last["step"] == max(losses(first)), "saved at the very step it left after"

    second = Watch()
    _, weights = run(str(tmp_path / "left"), second)
    assert second.of("start")[0]["resumed_from"] == last["step"]
    assert second.generation == first.generation + 1
    assert losses(first) | losses(second) == losses(calm), "every step has the same loss, to the bit"
    assert torch.equal(weights, expected)


def test_a_notice_without_the_time_to_save_costs_the_steps_since_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = Watch()
    _, expected = run(str(tmp_path / "calm"), calm)

    wait_for_saves(monkeypatch)
    first = Watch(leave_after=5, notice=Short())
    with pytest.raises(LeaveError):
        run(str(tmp_path / "left"), first)
    before = [r["step"] for r in first.of("save")]
    assert before[-1] < max(losses(first)), "a save that cannot end in time is not begun"
    assert any("no time to save" in line for line in first.said)

    second = Watch()
    _, weights = run(str(tmp_path / "left"), second)
    assert second.of("start")[0]["resumed_from"] == before[-1]
    assert losses(first) | losses(second) == losses(calm)
    assert torch.equal(weights, expected)


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    _, expected = run(str(tmp_path), Watch())
    again = Watch()
    outcome, weights = run(str(tmp_path), again)
    assert (outcome.step, losses(again)) == (STEPS, {})
    assert torch.equal(weights, expected)


def test_a_damaged_checkpoint_is_an_incident_of_the_run_that_passes_it_over(tmp_path: Path) -> None:
    first = Watch(leave_after=7)
    with pytest.raises(LeaveError):
        run(str(tmp_path), first)
    newest = first.of("save")[-1]
    pack = next((tmp_path / "packs" / newest["message"]).iterdir())
    pack.write_bytes(pack.read_bytes()[:-1])
    again = Watch()
    run(str(tmp_path), again)
    assert again.of("start")[0]["resumed_from"] < newest["step"]
    (told,) = [n for n in again.progress[-1].noted if n.cause == Cause.CHECKPOINT_DAMAGED]
    assert (told.step, told.checkpoint) == (newest["step"], newest["message"])
    assert told == again.progress[0].noted[0], "told from the first step on, always the same"
    assert again.progress[-1].last_durable_name == again.of("save")[-1]["message"]


def test_another_experiment_on_the_same_place_is_refused(tmp_path: Path) -> None:
    run(str(tmp_path), Watch())
    with pytest.raises(RefusedError, match=r"engine\.steps"):
        run(str(tmp_path), Watch(), make_experiment(steps=STEPS + 1))


def test_the_loop_needs_neither_checkpoints_nor_listeners(capsys: pytest.CaptureFixture[str]) -> None:
    data = Windows()
    model = MusicTransformerVAEGAN(ModelConfig(dim=16, layers=1, heads=2), data.vocab, data.pad_id, 16)
    trainer = AdvancedTrainer(model, ComprehensiveLossFramework(LossConfig()), train=data)
    assert trainer.configure(make_experiment()).fit().step == STEPS
    assert "step 12/12" in capsys.readouterr().out


def test_progress_tells_of_the_last_evaluation_and_save(tmp_path: Path) -> None:
    watch = Watch()
    run(str(tmp_path), watch)
    assert watch.progress[-1].last_durable_step == STEPS
    assert watch.progress[-1].val_loss == watch.of("evaluation")[-2]["val_loss"]


def test_progress_names_the_phase_before_it_begins(tmp_path: Path) -> None:
    class Asking(Watch):
        """Reads what progress says in the middle of each evaluation and at each save, as the operator may."""

        def __init__(self) -> None:
            super().__init__()
            self.told: set[tuple[Phase, str]] = set()

        def write(self, kind: str, **fields: Any) -> None:
            super().write(kind, **fields)
            if kind == "evaluation":
                self.told.add((self.phases[-1], self.progress[-1].phase))

        def update(self, progress: Progress) -> None:
            super().update(progress)
            if progress.phase == Phase.SAVE:
                self.told.add((self.phases[-1], progress.phase))

    watch = Asking()
    run(str(tmp_path), watch)
    assert watch.told == {(Phase.EVALUATE, "evaluate"), (Phase.SAVE, "save")}, (
        "a long evaluation must be judged by its own limit, not by that of a step"
    )
    assert watch.progress[-1].phase == Phase.END
    again = Watch()
    run(str(tmp_path), again)
    assert [p.phase for p in again.progress] == [Phase.EVALUATE, Phase.END], "also when no step is left"
    assert again.progress[-1].step == STEPS
