"""Beats: what every agent and every rank of a world says of itself, and what the silence of one means.

Each writes one small value into the store, again and again, and reads those of all others. A reader judges
silence by its own clock since the value last changed, so that no clocks are compared, and by awake time, so
that a reader that was itself frozen blames nobody. Pure judgements, shared by agents and ranks. Not here: the
store that holds the beats (board.py); who writes and reads them when (pulse.py, and in a rank
engine/survival/heartbeat.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from aurl_trainer.contract import DEFAULT_HANG_LIMITS, Phase

PEER_TIMEOUT = 10.0
"""Seconds without a beat after which a rank or an agent counts as missing, unless the environment says."""

SUSPICION = 0.4
"""The part of it that suffices once a collective has failed: this world is lost already, only whom to charge
is open."""


class State(StrEnum):
    """What a rank or an agent says of itself. All but the first two are last words."""

    RUNNING = "running"
    SUSPECT = "suspect"
    """A collective failed here; looking for the peer that is to blame."""
    DONE = "done"
    """An agent whose ranks all ended well: the end of the run, as far as they know."""
    LEFT = "left"
    """Gone by agreement of all ranks, or at the end: nobody needs to hurry."""
    BROKEN = "broken"
    """Gone because this world cannot go on: all others must leave it too."""
    FAILED = "failed"
    """Failed by itself: the one to blame."""


@dataclass(frozen=True)
class Beat:
    """One value in the store. `number` grows with each beat, 0 means that none came yet; `ticks` counts
    reports of progress inside one phase of one step."""

    number: int
    state: State
    node: str
    phase: Phase = Phase.START
    step: int = 0
    ticks: int = 0
    message: str = ""

    def to_json(self) -> str:
        """A compact JSON array."""
        values = (self.number, self.state, self.node, self.phase, self.step, self.ticks, self.message[:300])
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: bytes) -> Beat:
        """The beat in `text`; the inverse of to_json."""
        number, state, node, phase, step, ticks, message = json.loads(text)
        return cls(number, State(state), node, Phase(phase), step, ticks, message)


@dataclass(frozen=True)
class Seen:
    """A beat and, in seconds of the reader's awake time, how long since any change and since progress."""

    beat: Beat
    silent: float
    idle: float


class AwakeClock:
    """Seconds for which this process was awake: time that it lost while frozen counts at most one tick."""

    def __init__(self, longest_tick: float, now: Callable[[], float] = time.monotonic) -> None:
        self._longest, self._now, self._last, self._awake = longest_tick, now, now(), 0.0

    def tick(self) -> float:
        """Call often; returns the awake seconds so far."""
        now = self._now()
        self._awake += min(now - self._last, self._longest)
        self._last = now
        return self._awake


class Watch:
    """Remembers when each value last changed, by the reader's clock."""

    def __init__(self) -> None:
        self._changed: dict[str, tuple[Beat, float, float]] = {}

    def look(self, beats: Mapping[str, Beat], awake: float) -> dict[str, Seen]:
        """Take note of `beats`, read at `awake` seconds."""
        seen = {}
        for name, beat in beats.items():
            old, changed, moved = self._changed.get(name, (None, awake, awake))
            if old is not None and beat != old:
                changed = awake
                if (beat.phase, beat.step, beat.ticks) != (old.phase, old.step, old.ticks):
                    moved = awake
            self._changed[name] = (beat, changed, moved)
            seen[name] = Seen(beat, awake - changed, awake - moved)
        return seen


def agent_name(node: int) -> str:
    """Name in the store of the agent of group rank `node`."""
    return f"agent/{node}"


def rank_name(rank: int) -> str:
    """Name in the store of a rank."""
    return f"rank/{rank}"


def spoken(name: str) -> str:
    """A name as people say it: `rank 3`."""
    return name.replace("/", " ")


def missing(seen: Seen, timeout: float) -> bool:
    """Whether the one that beat so is gone: silent, although it has begun and has not said goodbye."""
    waited = seen.silent >= timeout and seen.beat.number > 0
    return waited and seen.beat.state in (State.RUNNING, State.SUSPECT)


def trouble(peers: Mapping[str, Seen], timeout: float) -> str | None:
    """Why this world cannot go on, in words that name the peer, or None."""
    for name, seen in peers.items():
        if seen.beat.state is State.FAILED:
            return f"{spoken(name)} on {seen.beat.node} failed: {seen.beat.message}"
    for name, seen in peers.items():
        if missing(seen, timeout):
            return f"{spoken(name)} on {seen.beat.node} has been silent for {seen.silent:.0f} s"
    for name, seen in peers.items():
        if seen.beat.state is State.BROKEN:
            return f"{spoken(name)} on {seen.beat.node} has left: {seen.beat.message}"
    return None


def departed(peers: Mapping[str, Seen]) -> str | None:
    """A peer that has gone in peace: with a failed collective it explains the failure."""
    for name, seen in peers.items():
        if seen.beat.state in (State.LEFT, State.DONE):
            return f"{spoken(name)} on {seen.beat.node} has left {seen.beat.message}".rstrip()
    return None


_ORDER = (
    Phase.START,
    Phase.LOAD,
    Phase.EVALUATE,
    Phase.SAVE,
    Phase.COMPILE,
    Phase.STEP,
    Phase.SYNC,
    Phase.END,
)
"""What ranks of the same step do one after the other: who does an earlier thing is waited for."""


def late(rank: int, ranks: Mapping[int, Seen], limits: Mapping[Phase, float]) -> str | None:
    """Why `rank` is the one that did not arrive, or None.

    The one to blame is the least advanced living rank, judged by its own phase's limit: those that wait for
    it in Phase.SYNC are never blamed, nor are those that begin the next step, or save, while one evaluates or
    writes music, for which it has its own long limit. If all wait in the same reduction, the lowest of them
    stands for it, so that an endless wait is booked once.
    """
    alive = {r: s for r, s in ranks.items() if s.beat.state is State.RUNNING}
    if rank not in alive:
        return None

    def position(r: int) -> tuple[int, int, int, int, int]:
        beat = alive[r].beat
        return (min(beat.number, 1), beat.step, _ORDER.index(beat.phase), beat.ticks, r)

    me = alive[rank]
    limit = limits[me.beat.phase]
    if me.idle <= limit or min(alive, key=position) != rank:
        return None
    waiting = sum(s.beat.phase is Phase.SYNC for r, s in alive.items() if r != rank)
    others = f"; {waiting} others wait" if waiting else ""
    where = f"phase {me.beat.phase} of step {me.beat.step}"
    return f"rank {rank} has made no progress in {where} for {limit:.0f} s{others}"


def hang_limits(text: str | None) -> dict[Phase, float]:
    """Seconds by phase: the defaults, with what AURL_HANG_LIMITS says laid over them."""
    given = json.loads(text) if text else {}
    return DEFAULT_HANG_LIMITS | {Phase(name): float(value) for name, value in given.items()}
