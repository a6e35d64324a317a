"""Whether another run lives at a place: seen by its beats; no locks, and no clocks are compared.

A living run writes an object of its own again and again, and a last time when it ends. Who finds another
run's generation to be the latest looks whether that object changes. This is for politeness and clear words;
what keeps two runs from harming each other is the fence (run_store.py).
Not here: generations and commits.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable

from aurl_trainer.errors import AurlTrainerError, DamagedError, RefusedError
from aurl_trainer.store.format.sealed import seal, unseal
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore

log = logging.getLogger(__name__)

PRESENCE = "presence"
"""The folder of these objects."""

BEAT_SECONDS = 20.0
WATCH_BEATS = 3.5
"""Without a beat for so many times that long a run counts as dead: three may fail."""
WATCH_SECONDS = WATCH_BEATS * BEAT_SECONDS


class Presence:
    """The beats of `run`, from `begin` to `end`, by a thread of their own."""

    def __init__(self, location: Location, run: str, every: float = BEAT_SECONDS) -> None:
        self._location = location
        self._run = run
        self._every = every
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._count = 0

    def begin(self) -> None:
        """The first beat is written before it returns. Raises CheckpointError."""
        if self._thread is not None:
            return
        self._beat()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="presence")
        self._thread.start()

    def end(self) -> None:
        """The run needs the place no more: another may begin there at once. Never raises."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join(self._every)
        self._thread = None
        self._try(ended=True)

    def _loop(self) -> None:
        while not self._stop.wait(self._every):
            self._try()

    def _try(self, *, ended: bool = False) -> None:
        try:
            self._beat(ended=ended)
        except AurlTrainerError as error:
            log.debug("no beat: %s", error)

    def _beat(self, *, ended: bool = False) -> None:
        self._count += 1
        record = {"format": "aurl-presence", "version": 1, "run": self._run, "at": time.time()}
        bounded = self._location.until(time.monotonic() + self._every)
        bounded.put(object_of(self._run), seal(record | {"beat": self._count, "ended": ended}))


def object_of(run: str) -> str:
    """Where a run's beats are."""
    return f"{PRESENCE}/{re.sub(r'[^0-9A-Za-z-]', '_', run)}.json"


def admit(
    store: RunStore,
    run: str,
    *,
    take_over: bool = False,
    watch: float = WATCH_SECONDS,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Raises RefusedError when another run than `run` was here last and lives.

    Returns at once where nobody was, or this run itself, or the other has ended; else it watches for `watch`
    seconds. `take_over` begins all the same, except for a run that was here before: it has been taken over
    from.
    """
    other = store.last_run()
    if other is None or other == run:
        return
    before = run in store.runs()
    if take_over and not before:
        log.warning("%s: taking over from run %s", store.location.uri, other)
        return
    if not _lives(store.location, other, watch, pause):
        return
    where = f"{store.location.uri}: run {other}"
    if before:
        raise RefusedError(f"{where} has taken over from this one ({run}) and lives; stop it first")
    raise RefusedError(
        f"{where} is training there; give this run another checkpoint.uri, stop the other, or set "
        "training.checkpoint.take_over to true"
    )


def _lives(location: Location, run: str, watch: float, pause: Callable[[float], None]) -> bool:
    last = _read(location, run)
    if last is not None and last.get("ended") is True:
        return False
    log.warning(
        "%s: run %s was there last and has not said that it ended; looking for %.0f s whether it lives",
        location.uri, run, watch,
    )  # fmt: skip
    looks = 10
    for _ in range(looks):
        pause(watch / looks)
        now = _read(location, run)
        if now is None:  # no beat: it says nothing, neither that the run lives nor that it is dead
            continue
        if last is not None and now != last:
            return now.get("ended") is not True
        last = now
    return False


def _read(location: Location, run: str) -> dict[str, object] | None:
    try:
        return unseal(location.get(object_of(run)), object_of(run))
    except (FileNotFoundError, DamagedError):
        return None
