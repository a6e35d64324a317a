"""What follows a save at the store, in a thread: old checkpoints go, or what a failed save has left.

The next save may copy the state meanwhile; it uploads when this has ended on every rank (saver.py).
Not here: what is removed (store/retention/).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aurl_trainer.checkpoint.saving.flight import Errand, Flight

log = logging.getLogger(__name__)


class Following:
    """`what` goes on, as one rank sees it; `join` waits for its thread. It may take so many `seconds`."""

    def __init__(self, what: str, join: Callable[[float], bool], seconds: float) -> None:
        self.what = what
        self._join = join
        self._until = time.monotonic() + seconds

    @classmethod
    def of(cls, flight: Flight, seconds: float) -> Following:
        """What the thread of a save does after its landing."""
        return cls(f"what follows the save of step {flight.name.step}", flight.join, seconds)

    @classmethod
    def sweep(
        cls, what: str, sweep: Callable[[], None], seconds: float, after: Flight | None = None
    ) -> Following:
        """`sweep` in a thread of its own, when that of the save `after` has ended.

        Not at all if that hangs, or no thread can be started: retention removes the same after the next save.
        """

        def work() -> None:
            if after is None or after.join(seconds):
                try:
                    sweep()
                except Exception:
                    log.exception("a defect in %s", what)

        errand = Errand(work, "sweep")
        if errand.refused is not None:
            log.warning("%s is left for later: %s", what, errand.refused)
        return cls(what, errand.join, seconds)

    def join(self, seconds: float) -> bool:
        """Whether it has ended within so many seconds."""
        return self._join(seconds)

    @property
    def lives(self) -> bool:
        """Whether it still goes on."""
        return not self.join(0.0)

    @property
    def overdue(self) -> bool:
        """Whether it goes on beyond its time: the store hangs."""
        return self.lives and time.monotonic() > self._until
