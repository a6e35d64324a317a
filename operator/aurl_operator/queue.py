"""Keys that want to be looked at: each at most once in the queue and once at work, in a fair order.

Two lanes: what is new or lost goes before mere news of progress, but not always, so neither starves. Within a
lane namespaces take turns, and none has all the workers: one in which each call takes long (a webhook that
times out) slows no other. Times to look again are kept in one heap. Not here: what looking means.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import Counter, OrderedDict, deque
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

    def __init__(self, clock: Callable[[], float], most: int) -> None:
        """`clock`: seconds, never running backwards. `most`: keys of one namespace at work at once."""
        self._clock = clock
        self._most = most
        self._at_work: Counter[str] = Counter()
        self._lanes: tuple[OrderedDict[str, deque[Key]], ...] = (OrderedDict(), OrderedDict())
        self._waiting: dict[Key, tuple[Lane, float]] = {}
        self._busy: dict[Key, Lane | None] = {}
        self._wakes: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
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
        self._wake_one()

    def add_at(self, key: Key, at: float) -> None:
        """Wants `key` looked at when the clock shows `at`; an earlier time stands."""
        if self._wakes.get(key, at + 1) > at:
            self._wakes[key] = at
            heapq.heappush(self._heap, (at, key))
            if self._waiters:
                self._set_timer()

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
                self._at_work[key[0]] += 1
                return key
            await self._something()

    def done(self, key: Key) -> None:
        """`key` is not at work any more."""
        again = self._busy.pop(key)
        namespace = key[0]
        if self._at_work[namespace] >= self._most:
            # Its next key woke somebody, perhaps, who could not take it.
            self._wake_one()
        self._at_work[namespace] -= 1
        if not self._at_work[namespace]:
            del self._at_work[namespace]
        if again is not None:
            self.add(key, again)

    async def _something(self) -> None:
        """Waits until there may be something. One key wakes one waiter: a crowd would cost much."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._set_timer()
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                # Woken and cancelled at once: what it was woken for is another's.
                self._wake_one()
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _set_timer(self) -> None:
        """Rings when the first key is due; before, nobody would look."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._heap:
            patience = max(0.0, self._heap[0][0] - self._clock())
            self._timer = asyncio.get_running_loop().call_later(patience, self._ring)

    def _ring(self) -> None:
        self._due()
        self._set_timer()

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
            for namespace, keys in self._lanes[lane].items():
                if self._at_work[namespace] >= self._most:
                    continue
                key = keys.popleft()
                # This namespace goes to the end of the line, or out of it.
                del self._lanes[lane][namespace]
                if keys:
                    self._lanes[lane][namespace] = keys
                del self._waiting[key]
                return key
        return None
