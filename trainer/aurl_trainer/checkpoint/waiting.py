"""Waiting for a store that does not answer when a world opens its checkpoints: some minutes, if it ever did.

Each operation is tried again for some seconds by itself (store/location/patience.py). A store that is away
for longer, while it restarts say, is no reason to end a job that has trained before: all ranks wait together.
At a job's first start they wait less, since the endpoint may be mistyped. Not here: errors that no waiting
mends.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from aurl_trainer.checkpoint.agreement import Ranks
from aurl_trainer.errors import UnavailableError

T = TypeVar("T")

TRAINED_SECONDS = 300.0
"""How long a job waits that has trained before."""
FIRST_SECONDS = 20.0
"""The same for one that has not."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 20.0
"""Seconds before the second try, and at most before each later one."""
TICK = 1.0
"""Seconds between two signs of life in a pause."""


@dataclass(frozen=True)
class Waiting:
    """How one rank waits. `trained`: it knows that the job has trained before; one that does is enough.

    `alive` is called at least every TICK seconds of a pause, and while a checkpoint is loaded with each piece
    that has come; `waits` when a load has ended on this rank and the others are waited for; `say`, on rank 0,
    with lines for the log.
    """

    trained: bool
    alive: Callable[[], None]
    say: Callable[[str], None]
    waits: Callable[[], None] = lambda: None

    def until_answered(self, act: Callable[[], T], ranks: Ranks) -> T:
        """What `act` gives, which all ranks do together and which ends alike on all of them.

        Tried again, at growing and random intervals, while it raises UnavailableError; raises the last one
        when the time is over.
        """
        began, tries = time.monotonic(), 0
        while True:
            try:
                result = act()
            except UnavailableError as error:
                tries += 1
                allowed, pause = self._agree(ranks, time.monotonic() - began, self._pause(tries))
                if pause is None:
                    raise
                if tries == 1 and ranks.rank == 0:
                    self.say(f"the store does not answer, waits up to {allowed:.0f} s for it: {error}")
                self._rest(pause)
            else:
                if tries and ranks.rank == 0:
                    self.say(f"the store answers again, after {time.monotonic() - began:.0f} s")
                return result

    def _agree(self, ranks: Ranks, waited: float, pause: float) -> tuple[float, float | None]:
        """For how long all wait in all, and until the next try; None: no more. Rank 0's clock counts."""
        told = ranks.together(lambda: (self.trained, waited, pause))
        allowed = TRAINED_SECONDS if any(trained for trained, _, _ in told) else FIRST_SECONDS
        _, waited, pause = told[0]
        return allowed, (pause if waited + pause <= allowed else None)

    @staticmethod
    def _pause(tries: int) -> float:
        return random.uniform(0.5, 1.0) * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (tries - 1))

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.alive()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(TICK, left))
            self.alive()
