"""The save of the last step, without which a run is not over: tried again, for some time, then an error."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from aurl_trainer.checkpoint import checkpointer
from aurl_trainer.checkpoint.saving.following import Following
from aurl_trainer.contract import Cause, ExitCode, Phase, Progress
from aurl_trainer.engine import saves
from aurl_trainer.engine.survival.exits import classify
from aurl_trainer.engine.survival.preemption import Notice
from aurl_trainer.errors import CheckpointError, LeaveError, UnsavedError
from aurl_trainer.store.kept import KeepingLocation, KeptPacks
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.engine.runs import STEPS, Watch, run
from tests.unit.trainer.store.far import PROTOCOL as FAR
from tests.unit.trainer.store.faulty import FaultyFileSystem

LAST = f"s{STEPS:08d}"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(saves, "LAST_PAUSES", (0.0, 0.0, 0.0))
    FaultyFileSystem.clear()
    yield
    FaultyFileSystem.clear()
    torch.use_deterministic_algorithms(False)


def refuse(times: float, at: str = LAST) -> None:
    """So many saves of what `at` names are refused: the first write of each."""
    left = [times]

    def fault(number: int, kind: str, path: str) -> None:
        if kind in ("put", "create", "write") and at in path and left[0] > 0:
            left[0] -= 1
            raise PermissionError(13, "Permission denied")

    FaultyFileSystem.reset(fault)


def test_a_last_save_that_fails_is_tried_again_and_the_run_ends_well() -> None:
    refuse(2)
    watch = Watch()
    outcome, _ = run("faulty://again", watch)
    assert outcome.durable == STEPS, f"expected the last step to be saved, found {outcome.durable}"
    assert RunStore(Location("faulty://again")).valid()[-1].step == STEPS
    assert watch.progress[-1].last_durable_step == STEPS
    told = [n.step for n in watch.progress[-1].noted if n.cause == Cause.SAVE_FAILED]
    assert told == [STEPS], f"expected one incident for all tries, found {told}"
    assert any(f"step {STEPS} was not saved" in line and "tried again" in line for line in watch.said)


def test_a_run_whose_last_step_cannot_be_saved_does_not_end_well_and_says_why() -> None:
    refuse(math.inf)
    watch = Watch()
    with pytest.raises(UnsavedError, match=f"the last step, {STEPS}, could not be saved") as error:
        run("faulty://never", watch)
    assert "the newest is of step 9: " in str(error.value) and "Permission denied" in str(error.value)
    tries = [r for r in watch.of("save") if r["step"] == STEPS]
    assert [r["ok"] for r in tries] == [False] * 4, "expected the save and three more tries"
    for first_start in (True, False):
        found = classify(error.value, first_start=first_start)
        assert found == (Cause.CRASH, ExitCode.CRASH), "a restart may save it: charged, and not final"
    FaultyFileSystem.reset()
    outcome, _ = run("faulty://never", Watch())
    assert outcome.durable == STEPS, "a restart goes on from the newest checkpoint and saves the last step"


@pytest.mark.parametrize("refused", [0, 2])
def test_a_last_step_that_only_nodes_have_whole_is_saved_anew(tmp_path: Path, refused: int) -> None:
    """What nodes keep goes with them: without another save the run would end well and leave damage."""
    folder = tmp_path / "run"
    store, kept = RunStore(Location(str(folder))), KeptPacks(tmp_path / "disk", 2**30)
    run(f"{FAR}://{folder}", Watch(), kept=kept)
    last = store.valid()[-1]
    (folder / last.pack(0)).unlink()
    watch = Watch()
    original, tries = KeepingLocation.writing, []

    def writing(self: KeepingLocation, name: str) -> Any:
        tries.append(name)
        if len(tries) <= refused:
            raise CheckpointError("Permission denied")
        return original(self, name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(KeepingLocation, "writing", writing)
        outcome, _ = run(f"{FAR}://{folder}", watch, kept=kept)
    assert outcome.durable == STEPS and not watch.of("step"), "it resumed at the last step"
    newest = store.valid()[-1]
    assert newest.step == STEPS and newest.number > last.number, "it was not saved anew"
    assert verify(store, newest).good
    assert len(tries) > refused


def test_a_removal_that_hangs_after_the_last_save_does_not_keep_the_run_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems without time limits may hang for ever, after all that the run is for has been stored."""
    hangs, over = threading.Event(), threading.Event()

    def hang(store: RunStore, *args: Any, **options: Any) -> None:
        if store.valid()[-1].step == STEPS:
            hangs.set()
            over.wait()

    monkeypatch.setattr(checkpointer, "retain", hang)
    monkeypatch.setattr(saves, "TIDY_SECONDS", 0.1)
    monkeypatch.setattr(Following, "overdue", property(lambda one: one.lives and hangs.is_set()))
    watch = Watch()
    try:
        outcome, _ = run(str(tmp_path / "run"), watch)
    finally:
        over.set()
    assert outcome.durable == STEPS and hangs.is_set()
    assert any("the removal of old checkpoints hangs" in line for line in watch.said), watch.said


def test_a_run_that_was_never_saved_says_so() -> None:
    refuse(math.inf, "packs/")
    with pytest.raises(UnsavedError, match="there is no checkpoint: "):
        run("faulty://nothing", Watch())


def test_all_tries_have_one_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saves, "LAST_SECONDS", 0.0)
    refuse(math.inf)
    watch = Watch()
    with pytest.raises(UnsavedError):
        run("faulty://late", watch)
    assert len([r for r in watch.of("save") if r["step"] == STEPS]) == 1, "expected no try after the time"


def test_a_notice_before_the_last_step_is_saved_lets_the_rank_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saves, "LAST_PAUSES", (3600.0,))

    class Brief(Notice):
        """Its time is over at the first look."""

        @property
        def left(self) -> float:
            return -1.0 if self.given else math.inf

    class Told(Watch):
        def update(self, progress: Progress) -> None:
            super().update(progress)
            failed = any(r["step"] == STEPS and not r["ok"] for r in self.of("save"))
            if progress.phase is Phase.SAVE and failed:
                self.runtime.notice.given = True

    refuse(math.inf)
    watch = Told(notice=Brief())
    with pytest.raises(LeaveError) as error:
        run("faulty://noticed", watch)
    assert error.value.exit_code is ExitCode.PREEMPTED, "it was told to leave: nobody failed"
    assert [r["reason"] for r in watch.of("end")] == ["preemption notice"]
