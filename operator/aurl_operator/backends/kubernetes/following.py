"""The logs of a job's pods while it goes on: all at once, and those that come later, until it has ended.

A stream that ends is opened again for as long as its pod prints: a server that restarts and a connection that
nobody used end it as well. What was opened when the pod had ended, and came to its end, is all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ApiError, ForbiddenError, UnavailableError
from aurl_operator.backends.kubernetes.pod_log import TRIES, Line, Reading, Wanted, container

AGAIN_SECONDS = 1.0
"""Between looks for the next attempt of a node."""

MOST_SECONDS = 15.0
"""The longest wait before a log is opened again."""

PATIENCE_SECONDS = 120.0
"""So long an API server may be away."""

Look = Callable[[], Awaitable[tuple[bool, list[dict[str, Any]]]]]
"""Whether the job has ended, asked first, and its pods that began to print."""


@dataclass
class _Followed:
    reading: Reading
    task: asyncio.Task[None] | None = None
    complete: bool = False
    failures: int = 0
    """In a row."""
    fruitless: int = 0
    """Tries in a row that brought no line."""
    due: float = 0.0

    async def read(self, api: Api, queue: asyncio.Queue[Line], over: bool) -> None:
        """One try. `over`: its pod had ended before."""
        self.fruitless += 1
        try:
            async for line in self.reading.lines(api):
                self.failures = self.fruitless = 0
                await queue.put(line)
        except ForbiddenError:
            raise
        except ApiError:
            self.failures += 1
        else:
            self.failures = 0
            self.complete = over
        self.due = time.monotonic() + min(MOST_SECONDS, AGAIN_SECONDS * 2.0 ** min(self.fruitless, 10))

    def idle(self) -> bool:
        """Whether no try is under way. Raises what must not be tried again."""
        if self.task is not None and self.task.done():
            self.task.result()
        return self.task is None or self.task.done()


async def followed(
    api: Api, look: Look, wanted: Wanted, readings: list[Reading]
) -> AsyncGenerator[Line, None]:
    """Lines as they come. `readings` takes those that there were. Raises ApiError."""
    queue: asyncio.Queue[Line] = asyncio.Queue(1000)
    known: dict[str, _Followed] = {}

    async def find() -> None:
        """Reads each pod that begins, until the job has ended and all is read."""
        heard = time.monotonic()
        while True:
            try:
                ended, pods = await look()
                heard = time.monotonic()
            except UnavailableError:
                if time.monotonic() - heard > PATIENCE_SECONDS:
                    raise
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            going = False
            for pod in pods:
                uid = pod["metadata"]["uid"]
                if uid not in known:
                    known[uid] = _Followed(Reading(pod, wanted))
                    readings.append(known[uid].reading)
                one = known[uid]
                given_up = one.failures >= TRIES and (ended or _over(pod))
                if one.complete or given_up:
                    continue
                going = True
                if one.idle() and time.monotonic() >= one.due:
                    one.task = asyncio.create_task(one.read(api, queue, _over(pod)))
            # Not a generator: each is asked, and says so if it may not be read.
            idle = [one.idle() for one in known.values()]
            if ended and not going and all(idle):
                return
            await asyncio.sleep(AGAIN_SECONDS)

    # Beside the reading: a node that never pauses must not hide the others and those that replace them.
    finding = asyncio.create_task(find())
    try:
        while not (finding.done() and queue.empty()):
            with contextlib.suppress(TimeoutError):
                yield await asyncio.wait_for(queue.get(), AGAIN_SECONDS)
        finding.result()
    finally:
        tasks = [finding, *(one.task for one in known.values() if one.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _over(pod: dict[str, Any]) -> bool:
    """Whether our container will print nothing more."""
    status = pod["status"]
    ours = container(pod)
    states = [s.get("state", {}) for s in status.get("containerStatuses", ()) if s["name"] == ours]
    return status.get("phase") in ("Succeeded", "Failed") or any("terminated" in s for s in states)
