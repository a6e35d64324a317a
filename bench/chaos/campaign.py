"""One run led through its kills to its end.

Not here: what is killed when (plan.py), the runs one after the other (__main__.py), whether they are the same
(judge.py).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aurl_trainer.store.format.names import CheckpointName
from bench.chaos.job import log, start
from bench.chaos.plan import Kill, Victim
from bench.chaos.stages import RECOVERY, Rhythm, Sight, Stage, stage_of
from bench.chaos.victims import household, strike
from bench.chaos.watch import Watch

CLOSE, FAR = 0.001, 0.02
"""Seconds between two looks: while a strike may be due at any moment, and while processes start."""

HUNT_SECONDS, HUNT_STEPS = 20.0, 24
"""Of training, for a stage to come; then the strike falls where the run is.

Without the second a quick run would be over before a stage that lasts a millisecond is met.
"""

SEARCH = 0.2
"""Seconds between two searches for processes, while some are coming."""


class StuckError(Exception):
    """A run came to no new step for too long, or to another end than success."""


@dataclass(frozen=True)
class Struck:
    """One kill as it happened. `found` is the stage that was seen right after it, `pids` what was signalled.

    `at` is seconds since the epoch; `took` the milliseconds between the look that decided and the signal.
    `step` and `generation` are the newest then. `seconds` is the time until the run was further than ever
    before; None: it was not, since the next kill came first or nothing was left to do. `again` are the steps
    of that generation that the next one did again (losses.py); None: it was lost already or had not begun, or
    none followed.
    """

    run: int
    number: int
    aimed: Stage
    found: Stage
    victim: Victim
    pids: tuple[int, ...]
    at: float
    took: float
    generation: int
    step: int
    furthest: int
    world: int | None
    seconds: float | None = None
    again: int | None = None


@dataclass
class Led:
    """What came of leading a run: its kills so far, and those it ended too early for."""

    struck: list[Struck] = field(default_factory=list)
    left: tuple[Kill, ...] = ()
    saved: frozenset[CheckpointName] = frozenset()
    """Checkpoints that were seen to be saved; see Watch."""


class Leader:
    """Leads one run of `nodes` nodes; `elastic`: it goes on with fewer. `tell` hears of each kill.

    After `deadline`, monotonic time, nothing more is struck, and the run comes to its end. `patience`:
    seconds without a new step after which it counts as stuck.
    """

    def __init__(
        self,
        job_file: Path,
        run: Path,
        rhythm: Rhythm,
        *,
        number: int,
        nodes: int,
        elastic: bool,
        deadline: float,
        patience: float,
        tell: Callable[[Struck], None],
    ) -> None:
        self._job, self._run, self._rhythm, self._number, self._nodes = job_file, run, rhythm, number, nodes
        self._elastic, self._deadline, self._patience, self._tell = elastic, deadline, patience, tell
        self._watch = Watch(run)
        self.led = Led()
        """What has come of it so far, also when `lead` raised."""
        self._open: list[int] = []
        self._new_step = (0, time.monotonic())

    def lead(self, kills: Sequence[Kill]) -> None:
        """From the first start to the end. Raises StuckError, the run being killed."""
        self._start()
        try:
            for i, kill in enumerate(kills):
                if not self._hunt(kill):
                    self.led.left = tuple(kills[i:])
                    break
            for _ in self._looks():
                pass
            code = self._call.wait()
            if code != 0:
                raise StuckError(f"`aurl run` ended with {code} instead of 0; it says:\n{log(self._run)}")
        finally:
            self._call.kill()
            self._call.wait()
            self.led.saved = frozenset(self._watch.saved)

    def _start(self) -> None:
        least = 1 if self._elastic else self._nodes
        options = ["--set", f"nodes.min={least}", "--set", f"nodes.max={self._nodes}", "--quiet"]
        self._call = start(self._job, self._run, options)
        self._home = household(self._call.pid)
        self._searched = 0.0

    def _hunt(self, kill: Kill) -> bool:
        """Waits for the kill's moment and strikes. False: the run, or the time, has ended before."""
        since: int | None = None
        trains = math.inf
        for sight in self._looks(kill.stage):
            if time.monotonic() > self._deadline:
                return False
            stage = stage_of(sight, self._rhythm)
            missed = kill.stage in RECOVERY and _past(stage, kill.stage)
            if stage is Stage.STEP and since is None:
                since, trains = sight.step, time.monotonic()
            due = stage is kill.stage
            if kill.stage is Stage.STEP:
                due = due and since is not None and sight.step >= since + kill.steps
            if kill.stage is not Stage.END and since is not None:
                missed |= sight.step >= since + HUNT_STEPS or time.monotonic() > trains + HUNT_SECONDS
            if not (due or missed) or not self._home.victims(kill.victim):
                continue
            if kill.seconds and not missed and not self._stays(kill):
                continue  # the stage is over already: wait for it to come again, or strike where the run is
            if self._strike(kill, time.monotonic()):
                return True
        return False

    def _stays(self, kill: Kill) -> bool:
        """Waits as long as the kill says; whether the run is in the same stage then."""
        until = time.monotonic() + kill.seconds
        while time.monotonic() < until and self._call.poll() is None:
            time.sleep(min(CLOSE * 2, max(0.0, until - time.monotonic())))
        self._search()
        return stage_of(self._look(), self._rhythm) is kill.stage

    def _strike(self, kill: Kill, seen: float) -> bool:
        pids = strike(self._home, kill.victim, kill.pick)
        took, at = time.monotonic() - seen, time.time()
        if not pids:
            return False
        sight = self._look()
        struck = Struck(
            run=self._number,
            number=kill.number,
            aimed=kill.stage,
            found=stage_of(sight, self._rhythm),
            victim=kill.victim,
            pids=pids,
            at=at,
            took=took * 1000,
            generation=sight.generation,
            step=sight.step,
            furthest=sight.furthest,
            world=sight.world,
        )
        self._open.append(len(self.led.struck))
        self.led.struck.append(struck)
        self._tell(struck)
        self._watch.struck(self._home)
        if kill.victim is Victim.RUN:
            self._call.wait()
            self._nodes = kill.world or self._nodes
            self._start()
        return True

    def _looks(self, stage: Stage | None = None) -> Iterator[Sight]:
        """Looks until the run has ended, often enough to meet `stage`."""
        while self._call.poll() is None:
            now = time.monotonic()
            sight = self._look()
            self._note(sight, now)
            whole = sight.world is not None and len(self._home.ranks) >= sight.world and not sight.waiting
            if not whole and now - self._searched >= SEARCH:
                self._search()
            yield sight
            far = stage is None or (sight.waiting and stage is not Stage.LOAD)
            time.sleep(FAR if far else CLOSE)

    def _search(self) -> None:
        self._home = household(self._call.pid)
        self._searched = time.monotonic()

    def _look(self) -> Sight:
        return self._watch.look(self._home)

    def _note(self, sight: Sight, now: float) -> None:
        """Closes the kills that the run has got over. Raises StuckError."""
        furthest, since = self._new_step
        if sight.furthest > furthest:
            self._new_step = (sight.furthest, now)
        elif now - max(since, self._last_strike(now)) > self._patience:
            raise StuckError(
                f"no new step after {sight.furthest} for {self._patience:.0f} s; it says:\n{log(self._run)}"
            )
        for i in list(self._open):
            struck = self.led.struck[i]
            if sight.furthest > struck.furthest and sight.generation > struck.generation:
                self.led.struck[i] = dataclasses.replace(struck, seconds=time.time() - struck.at)
                self._open.remove(i)

    def _last_strike(self, now: float) -> float:
        return now - (time.time() - self.led.struck[-1].at) if self.led.struck else 0.0


def _past(stage: Stage, aimed: Stage) -> bool:
    """Whether a run in `stage` has recovered further than `aimed`: it will not come there by itself."""
    order = list(Stage)
    return order.index(stage) > order.index(aimed)
