"""Signs of life of who prepares music: told to its own watcher, and by a file's time to all that wait for it.

A preparation may take hours. One that gets on is worth waiting for; one that does not is silent here, and so
are those that wait for it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

Alive = Callable[[], None]

SECONDS = 1.0
"""A mark is set, and looked at, as often."""


def marking(mark: Path) -> Alive:
    """A function that sets the time of the file `mark`. A place that takes no file is no error."""
    last = -math.inf

    def tell() -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            with contextlib.suppress(OSError):
                mark.touch()

    return tell


@contextmanager
def turn(lock: Path, alive: Alive) -> Iterator[Alive]:
    """Hold `lock`; yields what tells of progress meanwhile: to `alive`, and to all that wait for the lock.

    While it waits, `alive` is told of the progress of whoever has it.
    """
    # Not the lock's own time: each look of each that waits sets it.
    mark = lock.with_suffix(".mark")
    held, seen = FileLock(lock), _time(mark)
    while True:
        try:
            held.acquire(timeout=SECONDS)
            break
        except Timeout:
            if (now := _time(mark)) != seen:
                seen = now
                alive()
    others = marking(mark)

    def tell() -> None:
        alive()
        others()

    try:
        yield tell
    finally:
        held.release()


def _time(mark: Path) -> int | None:
    """By the clock of who set it: only good for comparing with itself. Nanoseconds."""
    try:
        return mark.stat().st_mtime_ns
    except OSError:
        return None
