"""Whether the watches still hear: they are silent for as long as nothing happens, and so is a deaf one.

Silence is no trouble while lists show nothing that the watches have not told of. Once they do, only the next
event of that kind clears the doubt. Not here: the lists (relist.py).
"""

from __future__ import annotations

from collections.abc import Callable

JOBS = "jobs"
PODS = "pods"

STALE_SECONDS = 900.0
"""Without an event of a kind, and without lists that say nothing was missed, the operator is not ready."""


class Hearing:
    """When each kind of object was heard of last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds, never running backwards."""
        self._clock = clock
        self._at = dict.fromkeys((JOBS, PODS), clock())
        self._doubted: set[str] = set()

    def heard(self, kind: str) -> None:
        """An event came."""
        self._at[kind] = self._clock()
        self._doubted.discard(kind)

    def missed(self, kind: str) -> None:
        """A list showed something that is there, and of which no event came."""
        self._doubted.add(kind)

    def compared(self, kind: str) -> None:
        """The API server has listed all of a kind, and what was missed is told."""
        if kind not in self._doubted:
            self._at[kind] = self._clock()

    def last(self) -> float:
        """Until when nothing was missed, as far as known, of any kind."""
        return min(self._at.values())

    def trouble(self) -> str | None:
        """None if all is well, else what is not."""
        kind = min(self._at, key=self._at.__getitem__)
        silent = self._clock() - self._at[kind]
        if silent <= STALE_SECONDS:
            return None
        return f"nothing heard of {kind} from the API server for {silent:.0f} s"
