"""Saves of one generation: staged while the step waits, made durable and committed beside the training.

The thread of a save takes part in no collective. A rank tells rank 0 about its packs by an object beside
them (store/format/pieces.py); rank 0's thread commits when it has all. How it went the ranks tell each other
where their training threads meet anyway: `signals` are two more numbers in a step's own reduction, and
`heard` gives the same answer on every rank after the same step. So nothing that training computes depends on
when a save ends. Not here: which checkpoints there are and which is loaded (checkpointer.py).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aurl_trainer.checkpoint.agreement import Ranks, caught, gravest
from aurl_trainer.checkpoint.parts import Part
from aurl_trainer.checkpoint.saving.flight import Errand, Flight, Landing
from aurl_trainer.checkpoint.saving.outcomes import Saved, SaveTimes
from aurl_trainer.checkpoint.saving.planning import Plans
from aurl_trainer.checkpoint.saving.staging import Box, Staging
from aurl_trainer.checkpoint.saving.upload import Uploader
from aurl_trainer.checkpoint.tree import split
from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.format.manifest import FORMAT, VERSION, Manifest
from aurl_trainer.store.format.names import CheckpointName, GenerationId
from aurl_trainer.store.format.pieces import Piece, assemble
from aurl_trainer.store.format.plain import encode
from aurl_trainer.store.format.versions import code_versions
from aurl_trainer.store.incremental import Placed
from aurl_trainer.store.run_store import RunStore

MEET = 0.5
"""Seconds between two looks of waiting ranks at each other."""
LAST_WAIT = 60.0
"""Seconds that a save waits for what follows the one before it."""
PIECE_WAITS = (0.01, 1.0)
"""Seconds between two looks for a rank's piece: at first, and at most."""
ELSEWHERE = "it has failed on another rank"
"""Why a rank gives up that has not failed itself."""
REMEMBERED_TIMES = 4
"""Of so many saves the slowest counts for what the next may take."""


@dataclass(frozen=True)
class Owner:
    """Who saves: the fields that all manifests of a generation share."""

    run: str
    identity: dict[str, Any]
    generation: GenerationId


class Saver:
    """Saves for one generation of one run, on all ranks alike. At most one save is under way.

    `earlier` is what the checkpoint that the run goes on from holds on the store, by hash: the first save may
    refer to it. `retain(orphans_only)` removes what is superfluous; it is called on rank 0 only, between two
    saves. Seconds: `deadline`, from begin to commit.
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
        retain: Callable[[bool], None],
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
        self._sweep: Errand | None = None
        self._swept = True
        self._times: deque[SaveTimes] = deque(maxlen=REMEMBERED_TIMES)

    # -- what all ranks know alike

    @property
    def under_way(self) -> int | None:
        """The step of the save under way."""
        return None if self._flight is None else self._flight.name.step

    @property
    def seconds_under_way(self) -> float:
        """How long the save under way has been uploading, by this rank's clock."""
        return 0.0 if self._flight is None else time.monotonic() - self._flight.began

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
        """Copies the state; it may change again on return. Raises CheckpointError: nothing is under way."""
        if self._flight is not None:
            raise RuntimeError(f"the save of step {self._flight.name.step} is still under way")
        began = time.monotonic()
        name = CheckpointName(self._next, step, self._owner.generation)
        self._next += 1
        scalars: Any = None
        plain: Any = None
        boxes: list[Box] = []

        def capture() -> bool:
            nonlocal scalars, plain
            self._end_last()
            trees = {k: v.capture() if isinstance(v, Part) else v for k, v in state.items()}
            tensors, scalars = split(trees)
            plain = encode(extra, "extra") if self._ranks.rank == 0 else None
            known = self._plans.take(tensors)
            if known:
                stage()
            return known

        def stage() -> None:
            boxes.extend(self._staging.stage(self._plans.boxes()))

        known = self._ranks.together(caught(capture))
        if not all(known):
            self._plans.make()
            boxes.clear()
            self._ranks.together(caught(stage))
        staged = time.monotonic() - began
        finite = {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}

        def work(flight: Flight) -> Landing:
            return self._work(flight, staged, boxes, scalars, plain, finite)

        self._flight = Flight(
            name, self._ranks.rank, staged, self._deadline, work, lambda: self._tidy_after(name)
        )

    def signals(self) -> tuple[float, float]:
        """Whether this rank's save is under way, and whether it has failed: to be summed over all ranks."""
        landing = None if self._flight is None else self._flight.landing
        if self._flight is None:
            return 0.0, 0.0
        return float(landing is None), float(landing is not None and landing.error is not None)

    def heard(self, busy: float, failed: float) -> Saved | None:
        """Takes the sums of all ranks' signals. Gives the checkpoint that is committed now, if one is.

        Raises CheckpointError when the save has failed on a rank, and FencedError: leave.
        """
        if self._flight is None:
            return None
        if busy:
            if failed:
                self._flight.give_up(ELSEWHERE)
            return None
        return self._settle()

    def finish(
        self, alive: Callable[[], None] = lambda: None, left: Callable[[], float] = lambda: math.inf
    ) -> Saved | None:
        """Waits for the save under way, all ranks together; raises as `heard` does.

        `alive` is called every MEET seconds. When a rank has no seconds `left` the save fails.
        """
        while self._flight is not None:
            flight = self._flight
            flight.wait(max(0.0, min(MEET, left())))
            alive()
            late = left() <= 0

            def tell(late: bool = late) -> list[float]:
                return [*self.signals(), float(late)]

            told = self._ranks.together(tell)
            busy, failed, hurried = (sum(column) for column in zip(*told, strict=True))
            if busy and hurried:
                flight.fail("there was no time left to finish it")
                continue
            saved = self.heard(busy, failed)
            if saved is not None:
                return saved
        return None

    def give_up(self, why: str, alive: Callable[[], None] = lambda: None) -> Saved | None:
        """Stops the save under way, which then fails with `why`; one committed already is given."""
        if self._flight is not None:
            self._flight.give_up(why)
        return self.finish(alive)

    def tidy(self, seconds: float = math.inf) -> bool:
        """Waits for what follows a save on this rank (retention); whether it ended within so many seconds."""
        until = time.monotonic() + seconds
        ended = self._last is None or self._last.join(seconds)
        if self._sweep is not None:
            ended = self._sweep.join(until - time.monotonic()) and ended
        return ended

    # -- steps of a save

    def _end_last(self) -> None:
        """Lets the last save's thread end: the buffer is its own until then, and so is the store."""
        if not self.tidy(LAST_WAIT):
            step = "before" if self._last is None else f"of step {self._last.name.step}"
            raise CheckpointError(f"the save {step} still hangs in the store")
        self._last = self._sweep = None
        if not self._swept:
            self._clean(orphans_only=True)  # what the last save left may be what fills the disk

    def _clean(self, *, orphans_only: bool) -> None:
        self._swept = True
        if self._ranks.rank == 0:
            self._retain(orphans_only)

    def _tidy_after(self, name: CheckpointName) -> None:
        """After a commit, in the save's thread."""
        if self._ranks.rank == 0:
            with contextlib.suppress(CheckpointError):  # they go with their folder
                self._store.location.delete([name.piece(r) for r in range(1, self._ranks.size)])
        self._clean(orphans_only=False)

    def _sweep_after(self, flight: Flight) -> None:
        """What a failed save has left goes at once, beside the training."""

        def sweep() -> None:
            if flight.join(self._deadline):
                self._clean(orphans_only=True)

        self._swept = False
        self._sweep = Errand(sweep, "sweep")

    def _work(
        self,
        flight: Flight,
        staged: float,
        boxes: list[Box],
        scalars: Any,
        extra: Any,
        metrics: dict[str, float | None],
    ) -> Landing:
        """All that happens in the thread."""
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
            pieces += [self._piece(store, flight, other) for other in range(1, self._ranks.size)]
            manifest = self._manifest(name, pieces, scalars, extra, metrics)
            # Before the look: whoever gives the save up between the two has to know that it may still arrive.
            flight.committing = True
            flight.check()
            store.commit(manifest)
        return Landing(
            rank,
            staged,
            durable - flight.began,
            time.monotonic() - durable,
            uploaded.written,
            uploaded.reused,
            flight.committing,
        )

    def _piece(self, store: RunStore, flight: Flight, rank: int) -> Piece:
        """Waits for what another rank has to tell."""
        wait, longest = PIECE_WAITS
        while True:
            flight.check()
            try:
                return Piece.parse(store.location.get(flight.name.piece(rank)), str(flight.name), rank)
            except FileNotFoundError:
                time.sleep(wait)
                wait = min(2 * wait, longest)

    def _manifest(
        self,
        name: CheckpointName,
        pieces: list[Piece],
        scalars: Any,
        extra: Any,
        metrics: dict[str, float | None],
    ) -> Manifest:
        packs, tensors = assemble(pieces)
        return Manifest(
            format=FORMAT,
            version=VERSION,
            name=str(name),
            number=name.number,
            step=name.step,
            generation=name.generation.number,
            nonce=name.generation.nonce,
            run=self._owner.run,
            at=time.time(),
            world=self._ranks.size,
            identity=self._owner.identity,
            versions=code_versions(),
            metrics=metrics,
            extra=extra,
            scalars=scalars,
            packs=packs,
            tensors=tensors,
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
                self._swept = False
                self._earlier = {}
            else:
                self._sweep_after(flight)
            raise gravest(errors)
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
            landings[0].stage + landings[0].upload + landings[0].commit,
            sum(m.written for m in landings),
            str(flight.name),
            sum(m.reused for m in landings),
            self._staging.bytes,
            max(m.stage for m in landings),
            max(m.upload for m in landings),
            landings[0].commit,
        )
