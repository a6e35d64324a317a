"""The order of things in a run: resume, notice, evaluation, failing saves. One process, real checkpoints."""

from __future__ import annotations

import errno
import math
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.config.checkpoint import CheckpointConfig, KeepConfig
from aurl_trainer.config.data import DataConfig, SourceConfig
from aurl_trainer.config.engine import BatchConfig, EngineConfig, OptimizerConfig
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.config.losses import LossConfig
from aurl_trainer.config.model import ModelConfig
from aurl_trainer.config.monitor import MonitorConfig, SamplesConfig
from aurl_trainer.contract import Cause, ExitCode, Phase, Progress
from aurl_trainer.engine.randomness import seed_all
from aurl_trainer.engine.runtime import Runtime
from aurl_trainer.engine.saves import Saves
from aurl_trainer.engine.state.position import Position
from aurl_trainer.engine.state.run_state import RunState
from aurl_trainer.engine.survival.preemption import Notice
from aurl_trainer.engine.trainer import AdvancedTrainer, Outcome
from aurl_trainer.errors import CheckpointError, FencedError, GoneError, LeaveError, RefusedError
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.engine.corpus import Windows
from tests.unit.trainer.store.faulty import FaultyFileSystem

STEPS = 12


def make_experiment(**engine: Any) -> Experiment:
    fields: dict[str, Any] = {
        "steps": STEPS,
        "batch": BatchConfig(global_batch=8, shards=2),
        "optimizer": OptimizerConfig(learning_rate=1e-2, warmup_steps=3),
        "device": "cpu",
    }
    return Experiment(
        seed=11,
        data=DataConfig(source=SourceConfig(midi="unused"), sequence_length=16),
        model=ModelConfig(dim=16, layers=1, heads=2, dropout=0.2),
        engine=EngineConfig(**(fields | engine)),
        monitor=MonitorConfig(evaluate_every=4, log_every=4),
        samples=SamplesConfig(count=0),
        checkpoint=CheckpointConfig(every=3),
    )


class Watch:
    """Takes the runtime's place: keeps what the loop tells, and asks it to leave after a step."""

    def __init__(
        self, leave_after: int | None = None, regroup: bool = False, notice: Notice | None = None
    ) -> None:
        self.records: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.phases: list[Phase] = []
        self.progress: list[Progress] = []
        self.generation = 0
        self._leave_after, self._regroup = leave_after, regroup
        self.runtime = Runtime(
            beats=self,
            open_records=self.open,
            progress=self,
            notice=notice or Notice(),
            say=self.said.append,
        )

    def open(self, generation: int) -> Watch:
        self.generation = generation
        return self

    def write(self, kind: str, **fields: Any) -> None:
        self.records.append({"kind": kind, **fields})

    def update(self, progress: Progress) -> None:
        self.progress.append(progress)
        if progress.step == self._leave_after and not self._regroup:
            self.runtime.notice.given = True

    def phase(self, phase: Phase, step: int) -> None:
        self.phases.append(phase)
        if phase is Phase.STEP and step == self._leave_after and not self._regroup:
            assert self.runtime.notice.given

    @property
    def regroup_requested(self) -> bool:
        return self._regroup and bool(self.progress) and self.progress[-1].step == self._leave_after

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [r for r in self.records if r["kind"] == kind]


class Short(Notice):
    """No time to save after a notice."""

    @property
    def left(self) -> float:
        return -1.0 if self.given else math.inf


def wait_for_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the run wait for each save, so that it is known which have ended when it leaves."""
    begin = Saves.save

    def save(self: Saves, position: Position, *, must: bool) -> None:
        begin(self, position, must=must)
        self.wait(position)

    monkeypatch.setattr(Saves, "save", save)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    FaultyFileSystem.clear()
    yield
    FaultyFileSystem.clear()
    torch.use_deterministic_algorithms(False)


def run(uri: str, watch: Watch, experiment: Experiment | None = None) -> tuple[Outcome, torch.Tensor]:
    """Train from what lies at `uri` to the end; the outcome and all weights."""
    experiment = experiment or make_experiment()
    data = Windows()
    seed_all(experiment.seed, "weights")
    model = MusicTransformerVAEGAN(experiment.model, data.vocab, data.pad_id, data.sequence_length)
    checkpointer = Checkpointer(
        uri,
        run="test",
        fingerprint=experiment.identity(),
        settings=experiment.checkpoint,
        rank=0,
        world=1,
    )
    outcome = (
        AdvancedTrainer(
            model,
            ComprehensiveLossFramework(LossConfig()),
            train=data,
            validation=Windows(count=6, seed=9),
            runtime=watch.runtime,
            checkpointer=checkpointer,
        )
        .configure(experiment)
        .fit()
    )
    return outcome, torch.cat([p.detach().flatten() for p in model.parameters()])


def losses(watch: Watch) -> dict[int, float]:
    return {r["step"]: r["loss"] for r in watch.of("step")}


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


def test_a_full_disk_costs_one_save_and_not_the_run() -> None:
    calm = Watch()
    _, expected = run("faulty://calm", calm)

    def full(number: int, kind: str, path: str) -> None:
        if kind in ("put", "create", "write") and "s00000006" in path:
            raise OSError(errno.ENOSPC, "No space left on device")

    FaultyFileSystem.reset(full)
    watch = Watch()
    outcome, weights = run("faulty://full", watch)
    assert outcome.step == STEPS
    failed = [r for r in watch.of("save") if not r["ok"]]
    assert [r["step"] for r in failed] == [6]
    assert "no space is left" in failed[0]["message"]
    assert any("step 6 was not saved" in line and "training goes on" in line for line in watch.said)
    assert any("not saved" in w for w in watch.progress[-1].warnings), "the status tells of it, too"
    told = [n for n in watch.progress[-1].noted if n.cause == Cause.SAVE_FAILED]
    assert [n.step for n in told] == [6], "one incident for one save"
    assert "no space is left" in told[0].message
    assert [r["id"] for r in watch.of("noted")] == [n.id for n in told], "the records have it as well"
    assert next(p for p in watch.progress if p.step == 8).last_durable_step != 6
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


class Slow(Watch):
    """A store that holds up what it is given for step 3, or `at`, until the run has come to `until`."""

    def __init__(self, until: int, at: str = "s00000003", **options: Any) -> None:
        super().__init__(**options)
        self._until, self._at = until, at
        self._open = threading.Event()
        self.reached = threading.Event()
        FaultyFileSystem.reset(self._hold)

    def _hold(self, number: int, kind: str, path: str) -> None:
        if self._at in path and kind != "delete":
            self.reached.set()
            assert self._open.wait(60), f"the run never came to step {self._until}"

    def update(self, progress: Progress) -> None:
        super().update(progress)
        if progress.step >= self._until:
            self.let_go()

    def let_go(self) -> None:
        self._open.set()


def test_training_goes_on_beside_a_slow_save_and_comes_to_the_same() -> None:
    experiment = make_experiment()
    experiment = experiment.model_copy(
        update={
            "checkpoint": CheckpointConfig(every=3, busy="skip"),
            "monitor": MonitorConfig(evaluate_every=0, log_every=4),
        }
    )
    calm = Watch()
    _, expected = run("faulty://calm", calm, experiment)
    watch = Slow(until=7)
    _, weights = run("faulty://slow", watch, experiment)
    assert torch.equal(weights, expected), "what is trained depends on when a save ends"
    assert next(p for p in watch.progress if p.step == 6).last_durable_step is None
    assert [r["step"] for r in watch.of("save") if r.get("skipped")][:1] == [6], "busy: skip"
    done = [r["step"] for r in watch.of("save") if r["ok"]]
    assert (done[0], done[-1]) == (3, STEPS), "the last one is never left out"
    assert not watch.progress[-1].warnings, "a save left out by rule is no incident"


def keeping_one(busy: Literal["wait", "skip"]) -> Experiment:
    """A save at steps 3, 6, 9 and 12; each but the first is followed by a removal."""
    keep = KeepConfig(latest=1, best=0, grace_seconds=0)
    return make_experiment().model_copy(
        update={
            "checkpoint": CheckpointConfig(every=3, busy=busy, keep=keep),
            "monitor": MonitorConfig(evaluate_every=0, log_every=4),
        }
    )


def hold_removal(watch: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    """The removal after the save of step 6 is held when training goes on; nothing else is under way then."""
    begin = Saves.save

    def save(self: Saves, position: Position, *, must: bool) -> None:
        begin(self, position, must=must)
        if position.step == 3:
            self.finish(position)
        elif position.step == 6:
            self.wait(position)
            assert watch.reached.wait(60), "nothing was removed after the save of step 6"

    monkeypatch.setattr(Saves, "save", save)


def test_what_follows_a_save_counts_for_the_rule_as_the_save_does(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Slow(until=10, at="removals/")
    hold_removal(watch, monkeypatch)
    run("faulty://retention", watch, keeping_one("skip"))
    saves = {r["step"]: r for r in watch.of("save")}
    assert [s for s, r in saves.items() if r.get("skipped")] == [9]
    assert saves[9]["message"] == "what follows the save of step 6 is still under way"
    assert [s for s, r in saves.items() if r["ok"]] == [3, 6, STEPS], "the last one is never left out"


def test_training_goes_on_while_what_follows_a_save_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Slow(until=11, at="removals/")
    hold_removal(watch, monkeypatch)
    run("faulty://retention", watch, keeping_one("wait"))
    assert [(r["step"], r["ok"]) for r in watch.of("save")] == [(s, True) for s in (3, 6, 9, STEPS)]
    assert next(p for p in watch.progress if p.step == 10).last_durable_step == 6, "retention met an upload"


def test_a_notice_does_not_wait_for_retention_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Brief(Notice):
        """Time for a few looks after a notice."""

        looks = 0

        @property
        def left(self) -> float:
            self.looks += self.given
            return math.inf if not self.given else 60.0 if self.looks < 20 else 0.0

    watch = Slow(until=STEPS, at="removals/", leave_after=7, notice=Brief())
    hold_removal(watch, monkeypatch)
    with pytest.raises(LeaveError):
        run("faulty://retention", watch, keeping_one("wait"))
    watch.let_go()
    saves = [(r["step"], r["ok"]) for r in watch.of("save")]
    assert saves == [(3, True), (6, True), (max(losses(watch)), False)]
    assert "no time left" in watch.of("save")[-1]["message"]


def test_what_a_failed_beginning_took_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = RunState.save

    def hangs(self: RunState, position: Position) -> None:
        if position.step == 6:
            time.sleep(0.3)
            raise CheckpointError("the save of step 3 still hangs in the store")
        begin(self, position)

    monkeypatch.setattr(RunState, "save", hangs)
    watch = Watch()
    run("faulty://recorded", watch)
    (failed,) = [r for r in watch.of("save") if not r["ok"]]
    assert failed["step"] == 6 and failed["seconds"] >= 0.3, "training has waited, and nobody is told"


def test_a_notice_waits_for_the_save_under_way_and_saves_again() -> None:
    watch = Slow(until=5, leave_after=5)
    experiment = make_experiment().model_copy(
        update={"monitor": MonitorConfig(evaluate_every=0, log_every=4)}
    )
    with pytest.raises(LeaveError):
        run("faulty://left", watch, experiment)
    assert [(r["step"], r["ok"]) for r in watch.of("save")] == [(3, True), (max(losses(watch)), True)]


def test_a_world_that_was_taken_over_leaves_when_its_save_learns_it(tmp_path: Path) -> None:
    class Overtaken(Watch):
        def update(self, progress: Progress) -> None:
            super().update(progress)
            if progress.step == 4 and progress.phase == Phase.STEP:
                store = RunStore(Location(str(tmp_path)))
                store.claim("test", make_experiment().identity(), 1)

    watch = Overtaken()
    with pytest.raises(FencedError, match="generation 2 has taken over"):
        run(str(tmp_path), watch)
    assert max(losses(watch)) < STEPS
    assert not [r for r in watch.of("save") if not r["ok"]], "to be replaced is no failed save"


def test_a_run_whose_place_was_deleted_ends_when_its_save_learns_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Saves.save

    def save(self: Saves, position: Position, *, must: bool) -> None:
        begin(self, position, must=must)
        self.finish(position)  # what follows the save may not write while the place is deleted

    monkeypatch.setattr(Saves, "save", save)

    class Deleted(Watch):
        def update(self, progress: Progress) -> None:
            super().update(progress)
            if progress.step == 4 and progress.phase == Phase.STEP:
                shutil.rmtree(tmp_path / "run")

    watch = Deleted()
    with pytest.raises(GoneError, match="the place was deleted under this run"):
        run(str(tmp_path / "run"), watch)
    assert max(losses(watch)) < STEPS


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
