"""When the loop saves, what it waits for, and what is told of it: records, incidents, the last durable step.

A failed save is an incident; training goes on with the older checkpoint. That of the last step is tried
again, since the run is not over without it. One that is left out by rule, or given up for a later one, is no
incident. Every method is called by all ranks at the same point. Not here: what a checkpoint holds (state/),
how it is saved (checkpoint/saving/), what is decided at a notice (survival/last_save.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

from aurl_trainer.checkpoint.saving.outcomes import Saved
from aurl_trainer.checkpoint.saving.saver import MEET, Saver
from aurl_trainer.contract import Cause, Phase
from aurl_trainer.engine.reporting.incidents import Note
from aurl_trainer.engine.runtime import Records, Runtime
from aurl_trainer.engine.state.position import Position
from aurl_trainer.engine.state.run_state import RunState
from aurl_trainer.engine.survival.last_save import LastSave, lacks, last_save
from aurl_trainer.engine.survival.preemption import Decision, decide
from aurl_trainer.errors import CheckpointError, FencedError, UnsavedError

SIGNALS = 7
"""How many numbers `signals` are."""
TIDY_SECONDS = 10.0
"""How long retention may hold up ranks that leave."""
LAST_PAUSES = (2.0, 5.0, 10.0, 20.0, 40.0, *([60.0] * 5))
"""Seconds before each further try to save the last step."""
LAST_SECONDS = 600.0
"""How long all these tries may take together; less than any hang limit that is not set."""
NOTICED_PAUSE = 2.0
"""The longest pause when a node is under notice."""


class Saves:
    """The saves of one run on one rank. `enter` tells peers and operator which phase begins."""

    def __init__(
        self,
        state: RunState,
        runtime: Runtime,
        records: Records,
        busy: Literal["wait", "skip"],
        enter: Callable[[Position, Phase], None],
        note: Note,
    ) -> None:
        self.durable = state.resumed_from
        self.durable_name = state.name
        self.lost = state.restored is not None and state.restored.lost
        """That one is not whole on the store any more."""
        self._state = state
        self._saver = state.saver
        self._runtime = runtime
        self._records = records
        self._busy = busy
        self._enter = enter
        self._note = note
        self._steps = state.experiment.engine.steps
        self._why = ""
        self._stalled = 0.0
        self._told_memory = False

    def signals(self) -> list[float]:
        """What the ranks must agree on about saves, to be summed over them at a step's end."""
        saver = self._saver
        if saver is None:
            return [0.0] * SIGNALS
        under_way = saver.seconds_under_way if saver.under_way is not None else None
        times = saver.times
        left = self._runtime.notice.left
        return [*saver.signals(), *lacks(left, times.stage, times.upload + times.commit, under_way)]

    def heard(self, sums: Sequence[float]) -> None:
        """Takes the sums of all ranks' signals: a save may have become durable, or failed."""
        saver = self._saver
        if saver is not None:
            self._outcome(saver.under_way or 0, lambda: saver.heard(*sums[:4]))

    def save(self, position: Position, *, must: bool) -> None:
        """Begins a save, or leaves it out if another is under way, the rule says so, and it is no `must`.

        A notice ends the wait for another; then the save that follows the notice takes this one's place.
        """
        saver = self._saver
        if saver is None:
            return
        busy = saver.following if saver.under_way is None else f"the save of step {saver.under_way}"
        if busy is not None and self._busy == "skip" and not must:
            self._left_out(position.step, f"{busy} is still under way")
            return
        self._enter(position, Phase.SAVE)
        self.wait(position)
        if saver.under_way is not None:
            self._noticed(position, f"a node has to leave, and {busy} is still under way")
            return
        began = time.perf_counter()
        try:
            self._state.save(position)
        except FencedError:
            raise
        except CheckpointError as error:
            self._stalled = time.perf_counter() - began
            self._failed(position.step, error)
        else:
            self._stalled = time.perf_counter() - began
        if not self._told_memory and saver.staging_bytes:
            self._told_memory = True
            size = f"{saver.staging_bytes / 1e6:,.1f} MB of {'pinned ' if saver.pinned else ''}host memory"
            self._say(f"saves are copied into {size} on this rank, and no more than that at any time")

    def wait(self, position: Position, *, hurried: bool = False, until: float = math.inf) -> None:
        """Waits until the save under way is durable or has failed, or a notice is given to any rank.

        `hurried` waits on after a notice, and the save fails when there is no time left: that of a notice, or
        by time.monotonic() `until`.
        """
        saver = self._saver
        if saver is None or saver.under_way is None:
            return
        notice = self._runtime.notice
        began, step = time.perf_counter(), saver.under_way

        def left() -> float:
            return min(notice.left if hurried else math.inf, until - time.monotonic())

        def finish() -> Saved | None:
            try:
                return saver.finish(lambda: self._alive(position), left, lambda: notice.given and not hurried)
            finally:
                self._stalled += time.perf_counter() - began

        self._outcome(step, finish)

    def needs(self, step: int) -> float:
        """Seconds that saving `step` before this rank leaves may take; infinite if none has been measured."""
        if self._saver is None or self._holds(step):
            return 0.0
        return self._saver.times.total or math.inf

    def last(self, position: Position, sums: Sequence[float]) -> None:
        """Saves before all leave, as far as there is time. `sums` are those of this step's signals.

        Not again where the store has this step, or will have it.
        """
        saver = self._saver
        if saver is None:
            return
        self._enter(position, Phase.SAVE)
        saver.hurry()
        if saver.under_way == position.step or self._holds(position.step):
            self.wait(position, hurried=True)
            self._tidy(saver, position, leaving=True)
            return
        choice = last_save(saver.under_way is not None, sums[4:])
        if choice in (LastSave.WAIT, LastSave.WAIT_AND_SAVE):
            self.wait(position, hurried=True)
        elif choice is LastSave.GIVE_UP_AND_SAVE and saver.under_way is not None:
            self._give_up(saver, saver.under_way, position)
        if choice in (LastSave.WAIT, LastSave.NOTHING):
            self._say(f"no time to save: the last saves took up to {saver.times.total:.1f} s")
        else:
            saver.hurry()  # again: what was waited for is followed by something, too
            self.save(position, must=True)
            self.wait(position, hurried=True)
        self._tidy(saver, position, leaving=True)

    def _noticed(self, position: Position, message: str) -> None:
        """A notice has ended the wait before a save; all ranks know it."""
        if position.step < self._steps:
            self._left_out(position.step, message)  # the loop makes the last save after the next step
        else:
            self.last(position, self._runtime.world.sum([[signal] for signal in self.signals()]))

    def finish(self, position: Position) -> Decision:
        """Waits at the end of the run until its last step is durable, and for what follows that save.

        A save of it that fails is tried again. Anything but GO_ON: it is not, and a notice leaves no time.
        Raises UnsavedError when it cannot be saved.
        """
        saver, decision = self._saver, Decision.GO_ON
        if saver is not None:
            if saver.under_way is not None:
                self._enter(position, Phase.SAVE)
            self.wait(position)
            if saver.under_way is not None:  # a notice, and all ranks know it
                saver.hurry()
                self.wait(position, hurried=True)
            if not self._holds(position.step):
                decision = self._insist(position)
            self._tidy(saver, position, leaving=decision is not Decision.GO_ON)
        return decision

    def _holds(self, step: int) -> bool:
        """Whether the store has `step`, whole as far as is known."""
        return self.durable == step and not self.lost

    def _tidy(self, saver: Saver, position: Position, *, leaving: bool) -> None:
        """Waits for what follows the last save: to its end, or, once ranks leave, for as long as they may.

        No longer than it may take: a store that hangs in a removal costs no run that has saved all.
        """
        notice = self._runtime.notice
        while not leaving:
            self._alive(position)
            mine = (not saver.tidy(MEET), notice.given, saver.overdue)
            goes_on, notices, overdue = self._runtime.world.sum([[float(one)] for one in mine])
            if not goes_on:
                return
            if overdue:
                self._say(
                    "the removal of old checkpoints hangs in the store; what it leaves goes the next time"
                )
            if notices or overdue:
                saver.hurry()
                leaving = True
        saver.tidy(max(0.0, min(TIDY_SECONDS, notice.left)))

    def _insist(self, position: Position) -> Decision:
        self._enter(position, Phase.SAVE)
        began = time.monotonic()
        until = began + LAST_SECONDS
        for pause in LAST_PAUSES:
            late, decision = self._pause(position, pause, until)
            if decision is not Decision.GO_ON:
                return decision
            if late:
                break
            self.save(position, must=True)
            self.wait(position, hurried=True, until=until)
            if self._holds(position.step):
                return Decision.GO_ON
        newest = "there is no checkpoint" if self.durable is None else f"the newest is of step {self.durable}"
        if self.lost:
            newest += ", which only copies nearby have whole"
        raise UnsavedError(
            f"the last step, {position.step}, could not be saved, tried for "
            f"{time.monotonic() - began:.0f} s; {newest}: {self._why}"
        )

    def _pause(self, position: Position, seconds: float, until: float) -> tuple[bool, Decision]:
        """All ranks wait so long, or until one of them is late; then also what a notice asks of this one."""
        began, notice = time.monotonic(), self._runtime.notice
        while True:
            self._alive(position)
            now = time.monotonic()
            mine = (now < began + seconds, now >= until, notice.given, notice.left <= 0)
            resting, late, notices, over = self._runtime.world.sum([[float(one)] for one in mine])
            if over:
                return True, decide(notice.given, notices, 0.0)
            if late or not resting:
                return late > 0, Decision.GO_ON
            seconds = min(seconds, NOTICED_PAUSE) if notices else seconds
            time.sleep(min(MEET, seconds))

    def _give_up(self, saver: Saver, step: int, position: Position) -> None:
        why = f"given up for the save of step {position.step}, which is the last"
        notice = self._runtime.notice
        try:
            saved = saver.give_up(why, lambda: self._alive(position), lambda: notice.left)
        except FencedError:
            raise
        except CheckpointError:
            self._left_out(step, why)
        else:
            if saved is not None:
                self._saved(saved)

    # -- what is told

    def _alive(self, position: Position) -> None:
        self._runtime.beats.phase(Phase.SAVE, position.step)

    def _outcome(self, step: int, ask: Callable[[], Saved | None]) -> None:
        try:
            saved = ask()
        except FencedError:
            raise
        except CheckpointError as error:
            self._failed(step, error)
        else:
            if saved is not None:
                self._saved(saved)

    def _saved(self, saved: Saved) -> None:
        self.durable, self.durable_name, self.lost = saved.step, saved.name, False
        if self._runtime.world.rank == 0:
            self._records.write(
                "save",
                step=saved.step,
                seconds=self._stalled,
                bytes=saved.bytes,
                ok=True,
                message=saved.name,
                reused=saved.reused,
                staging=saved.staging,
                stage_seconds=saved.stage_seconds,
                upload_seconds=saved.upload_seconds,
                commit_seconds=saved.commit_seconds,
            )

    def _failed(self, step: int, error: CheckpointError) -> None:
        self._why = str(error)
        if self._runtime.world.rank == 0:
            self._records.write(
                "save", step=step, seconds=self._stalled, bytes=0, ok=False, message=str(error)
            )
            then = "training goes on" if step < self._steps else "it is tried again before the run ends"
            self._say(f"warning: step {step} was not saved: {error}; {then}")
        self._note(
            f"save-failed/{self._state.generation}/{step}",
            Cause.SAVE_FAILED,
            f"step {step} was not saved: {error}",
            step=step,
        )

    def _left_out(self, step: int, message: str) -> None:
        if self._runtime.world.rank == 0:
            self._records.write(
                "save", step=step, seconds=0.0, bytes=0, ok=False, message=message, skipped=True
            )
            self._say(f"step {step} is not saved: {message}")

    def _say(self, text: str) -> None:
        if self._runtime.world.rank == 0:
            self._runtime.say(text)
