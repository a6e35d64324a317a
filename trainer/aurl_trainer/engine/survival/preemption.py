"""A preemption notice (SIGTERM) as a flag, and what the ranks make of it together.

The signal only sets the flag; at a step's end the ranks sum their flags and all act alike. Not here: the
save itself and the reduction (trainer.py, parallel.py).
"""

from __future__ import annotations

import math
import signal
import time
from enum import Enum
from types import FrameType

EXIT_SECONDS = 2.0
"""Kept of the time after a notice for leaving itself."""


class Decision(Enum):
    """What a rank does after a step."""

    GO_ON = "go on"
    SAVE_AND_LEAVE = "save and leave"
    """This node is under notice."""
    SAVE_AND_REJOIN = "save and rejoin"
    """Another node is under notice, or one waits to join: a new world forms."""


class Notice:
    """Whether this rank has been told to leave, and how long it may take: `grace` seconds from then."""

    def __init__(self, grace: float = math.inf) -> None:
        self.given = False
        self._grace = grace
        self._until = math.inf

    def listen(self) -> Notice:
        """Set the flag on SIGTERM, from now on. Main thread only."""
        signal.signal(signal.SIGTERM, self._set)
        return self

    @property
    def left(self) -> float:
        """Seconds until this rank should have begun to leave; infinite without a notice."""
        return self._until - time.monotonic() - EXIT_SECONDS

    def _set(self, number: int, frame: FrameType | None) -> None:
        if not self.given:
            self._until = time.monotonic() + self._grace
        self.given = True


def decide(own_notice: bool, notices: float, regroups: float) -> Decision:
    """The same decision on every rank, but for who leaves: sums over all ranks in, action out."""
    if notices == 0 and regroups == 0:
        return Decision.GO_ON
    return Decision.SAVE_AND_LEAVE if own_notice else Decision.SAVE_AND_REJOIN
