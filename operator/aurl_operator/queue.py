"""Keys that want to be looked at: each at most once in the queue and once at work, in a fair order.

Two lanes: what is new or lost goes before mere news of progress, but not always, so neither starves. Within a
lane namespaces take turns. Times to look again are kept in one heap. Not here: what looking means.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import IntEnum

Key = tuple[str, str]
"""Namespace and name of a job."""


class Lane(IntEnum):
    """How much it matters."""

    WORK = 0
    """Something was created, changed or lost."""
    NEWS = 1
    """Progress."""


NEWS_EVERY = 4
"""While there is work, one key in so many is of the lane of news."""


class Queue:
    """For one event loop; not for threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds, never running backwards."""
        self._clock = clock
        self._lanes: tuple[OrderedDict[str, deque[Key]], ...] = (OrderedDict(), OrderedDict())
        self._waiting: dict[Key, tuple[Lane, float]] = {}
        self._busy: dict[Key, Lane | None] = {}
        self._wakes: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._something = asyncio.Event()
        self._turn = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def age(self) -> float:
        """Seconds that the oldest key has waited."""
        return max((self._clock() - since for _, since in self._waiting.values()), default=0.0)

    def add(self, key: Key, lane: Lane = Lane.WORK) -> None:
        """Wants `key` looked at. While it is at work, it is looked at again afterwards."""
        if key in self._busy:
            again = self._busy[key]
            self._busy[key] = lane if again is None else min(again, lane)
            return
        before = self._waiting.get(key)
        if before is not None and before[0] <= lane:
            return
        if before is not None:
            others = self._lanes[before[0]][key[0]]
            others.remove(key)
            if not others:  # a namespace in line has work
                del self._lanes[before[0]][key[0]]
        self._waiting[key] = (lane, before[1] if before else self._clock())
        self._lanes[lane].setdefault(key[0], deque()).append(key)
        self._something.set()

    def add_at(self, key: Key, at: float) -> None:
        """Wants `key` looked at when the clock shows `at`; an earlier time stands."""
        if self._wakes.get(key, at + 1) > at:
            self._wakes[key] = at
            heapq.heappush(self._heap, (at, key))
            self._something.set()

    def forget(self, key: Key) -> None:
        """No time to look at `key` again stands any more."""
        self._wakes.pop(key, None)

    async def get(self) -> Key:
        """The next key, which is at work until `done`."""
        while True:
            self._due()
            key = self._next()
            if key is not None:
                self._busy[key] = None
                return key
            self._something.clear()
            patience = None if not self._heap else max(0.0, self._heap[0][0] - self._clock())
            try:
                await asyncio.wait_for(self._something.wait(), patience)
            except TimeoutError:
                continue

    def done(self, key: Key) -> None:
        """`key` is not at work any more."""
        again = self._busy.pop(key)
        if again is not None:
            self.add(key, again)

    def _due(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._wakes.get(key) == at:
                del self._wakes[key]
                self.add(key)

    def _next(self) -> Key | None:
        self._turn += 1
        order = (1, 0) if self._turn % NEWS_EVERY == 0 else (0, 1)
        for lane in order:
            if self._lanes[lane]:
                namespace, keys = next(iter(self._lanes[lane].items()))
                key = keys.popleft()
                # This namespace goes to the end of the line, or out of it.
                del self._lanes[lane][namespace]
                if keys:
                    self._lanes[lane][namespace] = keys
                del self._waiting[key]
                return key
        return None
