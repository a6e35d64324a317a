"""Saves of one generation: staged while the step waits, made durable and committed beside the training.

The thread of a save takes part in no collective. A rank tells rank 0 about its packs by an object beside
them (store/format/pieces.py); rank 0's thread commits when it has all. How it went the ranks tell each other
where their training threads meet anyway: `signals` are a few more numbers in a step's own reduction, and
`heard` gives the same answer on every rank after the same step. So nothing that training computes depends on
when a save ends. What follows a save at the store (following.py) is done between two: the next one is copied
meanwhile, and its upload begins when the ranks have told each other that nothing goes on any more.
Not here: which checkpoints there are and which is loaded (checkpointer.py).
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from aurl_trainer.checkpoint.agreement import Ranks, caught, gravest
from aurl_trainer.checkpoint.parts import Part
from aurl_trainer.checkpoint.saving.committing import Owner, Plain, await_piece, manifest_of
from aurl_trainer.checkpoint.saving.flight import Flight, Landing
from aurl_trainer.checkpoint.saving.following import Following
from aurl_trainer.checkpoint.saving.outcomes import Saved, SaveTimes
from aurl_trainer.checkpoint.saving.planning import Plans
from aurl_trainer.checkpoint.saving.staging import Box, Staging
from aurl_trainer.checkpoint.saving.upload import Uploader
from aurl_trainer.checkpoint.tree import split
from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.plain import encode
from aurl_trainer.store.incremental import Placed
from aurl_trainer.store.run_store import RunStore

MEET = 0.5
"""Seconds between two looks of waiting ranks at each other."""
HELD_MEET = 0.05
"""The same while they wait for the upload to begin."""
ELSEWHERE = "it has failed on another rank"
"""Why a rank gives up that has not failed itself."""
REMEMBERED_TIMES = 4
"""Of so many saves the slowest counts for what the next may take."""


class Saver:
    """Saves for one generation of one run, on all ranks alike. At most one save is under way.

    `earlier` is what the checkpoint that the run goes on from holds on the store, by hash: the first save may
    refer to it. `retain(orphans_only, stop)` removes what is superfluous, and leaves the rest when `stop()`
    says so; it is called in a thread, on rank 0 only, between two saves, and first of all for what earlier
    worlds left. Seconds: `deadline`, from begin to commit; what follows a save may take as long.
    """

    def __init__(
        self,
        store: RunStore,
        ranks: Ranks,
        owner: Owner,
        uploader: Uploader,
        *,
        first_number: int,
        earlier: Mapping[str, Placed],
        deadline: float,
        retain: Callable[[bool, Callable[[], bool]], None],
    ) -> None:
        self._store = store
        self._ranks = ranks
        self._owner = owner
        self._uploader = uploader
        self._next = first_number
        self._earlier = earlier
        self._deadline = deadline
        self._retain = retain
        self._plans = Plans(ranks)
        self._staging = Staging()
        self._flight: Flight | None = None
        self._last: Flight | None = None
        self._following: Following
        self._follows: bool
        """Whether something follows the last save on any rank, as all know it."""
        self._overdue = False
        """Whether beyond its time."""
        self._swept: bool
        """Whether what failed saves left has gone, or goes."""
        self._hurry = threading.Event()
        self._times: deque[SaveTimes] = deque(maxlen=REMEMBERED_TIMES)
        self._sweep("earlier worlds")

    # -- what all ranks know alike

    @property
    def under_way(self) -> int | None:
        """The step of the save under way."""
        return None if self._flight is None else self._flight.name.step

    @property
    def seconds_under_way(self) -> float:
        """How long the save under way has been uploading, by this rank's clock."""
        return 0.0 if self._flight is None else self._flight.uploading

    @property
    def following(self) -> str | None:
        """What goes on at the store after the last save, within its time; the next upload waits for it."""
        return self._following.what if self._follows and not self._overdue else None

    @property
    def overdue(self) -> bool:
        """Whether, on this rank, what follows the last save goes on beyond its time."""
        return self._following.overdue

    @property
    def times(self) -> SaveTimes:
        """What a save may take; all zero before the first has ended."""
        return SaveTimes(
            max((t.stage for t in self._times), default=0.0),
            max((t.upload for t in self._times), default=0.0),
            max((t.commit for t in self._times), default=0.0),
        )

    @property
    def staging_bytes(self) -> int:
        """Host memory of this rank's copy."""
        return self._staging.bytes

    @property
    def pinned(self) -> bool:
        """Whether that memory is page-locked."""
        return self._staging.pinned

    # -- saving

    def begin(
        self,
        step: int,
        state: Mapping[str, Any],
        extra: dict[str, Any],
        metrics: Mapping[str, float],
    ) -> None:
        """Copies the state; it may change again on return. Waits for nothing at the store.

        Raises CheckpointError: nothing is under way. Some of the last save, or what follows it, hangs.
        """
        if self._flight is not None:
            raise RuntimeError(f"the save of step {self._flight.name.step} is still under way")
        began = time.monotonic()
        name = CheckpointName(self._next, step, self._owner.generation)
        self._next += 1
        scalars: Any = None
        plain: Any = None
        boxes: list[Box] = []

        def capture() -> tuple[bool, bool]:
            nonlocal scalars, plain
            self._check_last()
            trees = {k: v.capture() if isinstance(v, Part) else v for k, v in state.items()}
            tensors, scalars = split(trees)
            plain = encode(extra, "extra") if self._ranks.rank == 0 else None
            known = self._plans.take(tensors)
            if known:
                stage()
            return known, self._following.lives

        def stage() -> None:
            boxes.extend(self._staging.stage(self._plans.boxes()))

        known, lives = zip(*self._ranks.together(caught(capture)), strict=True)
        if not all(known):
            self._plans.make()
            boxes.clear()
            self._ranks.together(caught(stage))
        staged = time.monotonic() - began
        finite = {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}

        def work(flight: Flight) -> Landing:
            return self._work(flight, staged, boxes, Plain(scalars, plain, finite))

        self._follows, self._overdue = any(lives), False
        if not self._follows and not self._swept and not self._hurry.is_set():
            self._sweep("the save before")  # it may be what fills the disk
        behind = self._following.what if self._follows else None
        if behind is None:
            self._hurry.clear()
        self._flight = Flight(
            name, self._ranks.rank, staged, self._deadline, work, lambda: self._tidy_after(name), behind
        )

    def signals(self) -> tuple[float, float, float, float]:
        """To be summed over all ranks, one or nothing each: this rank's save is under way; it has failed;
        what follows a save goes on; beyond its time."""
        flight, following = self._flight, self._following
        landing = None if flight is None else flight.landing
        if flight is not None and landing is not None:
            following = Following.of(flight, self._deadline)
        return (
            float(flight is not None and landing is None),
            float(landing is not None and landing.error is not None),
            float(following.lives),
            float(following.overdue),
        )

    def heard(self, busy: float, failed: float, follows: float, overdue: float) -> Saved | None:
        """Takes the sums of all ranks' signals. Gives the checkpoint that is committed now, if one is.

        Raises CheckpointError when the save has failed on a rank, and FencedError: leave.
        """
        self._follows, self._overdue = follows > 0, overdue > 0
        if self._flight is None:
            return None
        if not self._follows and not self._flight.released:
            self._hurry.clear()
            self._flight.release()
        if busy:
            if failed:
                self._flight.give_up(ELSEWHERE)
            return None
        return self._settle()

    def finish(
        self,
        alive: Callable[[], None] = lambda: None,
        left: Callable[[], float] = lambda: math.inf,
        stop: Callable[[], bool] = lambda: False,
    ) -> Saved | None:
        """Waits for the save under way, all ranks together; raises as `heard` does.

        `alive` is called every MEET seconds. When a rank has no seconds `left` the save fails; when one says
        `stop()` the wait ends on all of them, and the save goes on.
        """
        while self._flight is not None:
            flight = self._flight
            flight.wait(max(0.0, min(MEET if flight.released else HELD_MEET, left())))
            alive()
            mine = (float(left() <= 0), float(stop()))

            def tell(mine: tuple[float, float] = mine) -> list[float]:
                return [*self.signals(), *mine]

            told = self._ranks.together(tell)
            *signals, late, stops = (sum(column) for column in zip(*told, strict=True))
            if signals[0] and late:
                flight.fail("there was no time left to finish it")
                continue
            saved = self.heard(*signals)
            if saved is not None or stops:
                return saved
        return None

    def give_up(
        self,
        why: str,
        alive: Callable[[], None] = lambda: None,
        left: Callable[[], float] = lambda: math.inf,
    ) -> Saved | None:
        """Stops the save under way, which then fails with `why`; one committed already is given."""
        if self._flight is not None:
            self._flight.give_up(why)
        return self.finish(alive, left)

    def hurry(self) -> None:
        """All will leave: what follows a save stops soon, so that the last one has the store to itself."""
        self._hurry.set()

    def tidy(self, seconds: float = math.inf) -> bool:
        """Waits for what follows a save on this rank (retention); whether it ended within so many seconds."""
        return self._following.join(seconds)

    # -- steps of a save

    def _check_last(self) -> None:
        """The buffer is the last save's until its thread has read it; what had its time is not waited for."""
        if self._last is not None and self._last.working:
            raise CheckpointError(f"the save of step {self._last.name.step} still hangs in the store")
        if self._following.overdue:
            raise CheckpointError(f"{self._following.what} still hangs in the store")

    def _clean(self, *, orphans_only: bool) -> None:
        if self._ranks.rank == 0:
            self._retain(orphans_only, self._hurry.is_set)

    def _tidy_after(self, name: CheckpointName) -> None:
        """After a commit, in the save's thread."""
        if self._ranks.rank == 0:
            with contextlib.suppress(CheckpointError):  # they go with their folder
                self._store.location.delete([name.piece(r) for r in range(1, self._ranks.size)])
        self._clean(orphans_only=False)

    def _sweep(self, whose: str, after: Flight | None = None) -> None:
        """What was left goes, in a thread, when that of a failed save has ended."""
        self._swept = self._follows = True
        self._following = Following.sweep(
            f"the removal of what {whose} left",
            lambda: self._clean(orphans_only=True),
            self._deadline,
            after,
        )

    def _work(
        self,
        flight: Flight,
        staged: float,
        boxes: list[Box],
        plain: Plain,
    ) -> Landing:
        """All that happens in the thread."""
        began = time.monotonic()
        rank, name = self._ranks.rank, flight.name
        store = self._store.until(flight.deadline)
        uploaded = self._uploader.upload(boxes, name, self._earlier, flight.check, flight.deadline)
        boxes.clear()
        flight.placed = uploaded.placed
        durable = time.monotonic()
        if rank:
            flight.check()
            store.location.put(name.piece(rank), uploaded.piece.to_bytes())
        else:
            pieces = [uploaded.piece]
            pieces += [await_piece(store.location, flight, other) for other in range(1, self._ranks.size)]
            manifest = manifest_of(self._owner, name, pieces, plain)
            # Before the look: whoever gives the save up between the two has to know that it may still arrive.
            flight.committing = True
            flight.check()
            store.commit(manifest)
        return Landing(
            rank,
            staged,
            flight.held,
            durable - began,
            time.monotonic() - durable,
            uploaded.written,
            uploaded.reused,
            flight.committing,
        )

    def _settle(self) -> Saved:
        """The save has ended on every rank; all learn how, and draw the same conclusions."""
        flight = self._flight
        assert flight is not None
        landing = flight.landing
        assert landing is not None
        self._flight, self._last = None, flight
        landings = self._ranks.together(lambda: landing)
        errors = [(m.error, m.message) for m in landings if m.error is not None]
        errors = [e for e in errors if e[1] != ELSEWHERE] or errors
        if errors:
            if any(m.committing for m in landings):
                # The manifest may still arrive: what it refers to stays until the next save, and that one
                # refers to nothing, since it is not known which checkpoint is the newest.
                self._following, self._swept = Following.of(flight, self._deadline), False
                self._earlier = {}
            elif flight.released:
                self._sweep(f"the save of step {flight.name.step}", flight)
            raise gravest(errors)
        self._following, self._swept = Following.of(flight, self._deadline), True
        self._earlier = flight.placed
        self._times.append(
            SaveTimes(
                max(m.stage for m in landings),
                max(m.upload for m in landings),
                landings[0].commit,
            )
        )
        return Saved(
            flight.name.step,
            landings[0].stage + landings[0].held + landings[0].upload + landings[0].commit,
            sum(m.written for m in landings),
            str(flight.name),
            sum(m.reused for m in landings),
            self._staging.bytes,
            max(m.stage for m in landings),
            max(m.upload for m in landings),
            landings[0].commit,
        )
