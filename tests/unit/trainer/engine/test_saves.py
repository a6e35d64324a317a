"""Saves within a run: failing, slow, in the way of each other, taken over. One process, real checkpoints."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from aurl_trainer.config.checkpoint import CheckpointConfig, KeepConfig
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.config.monitor import MonitorConfig
from aurl_trainer.contract import Cause, Phase, Progress
from aurl_trainer.engine.saves import Saves
from aurl_trainer.engine.state.position import Position
from aurl_trainer.engine.state.run_state import RunState
from aurl_trainer.errors import CheckpointError, FencedError, GoneError, LeaveError
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.engine.runs import STEPS, Brief, Watch, losses, make_experiment, run
from tests.unit.trainer.store.faulty import FaultyFileSystem

pytestmark = pytest.mark.usefixtures("empty_store")


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


class Slow(Watch):
    """A store that holds up what it is given for step 3, or `at`, until the run has come to `until`.

    `place`: only what is below it, where a save of an earlier run may still be under way.
    """

    def __init__(self, until: int, at: str = "s00000003", place: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._until, self._at, self._place = until, at, place
        self._open = threading.Event()
        self.reached = threading.Event()
        FaultyFileSystem.reset(self._hold)

    def _hold(self, number: int, kind: str, path: str) -> None:
        if self._meant(path) and kind != "delete":
            self.reached.set()
            assert self._open.wait(60), f"the run never came to step {self._until}"

    def _meant(self, path: str) -> bool:
        return self._at in path and self._place in path

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
