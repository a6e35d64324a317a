"""One save on its way from host memory to the store, in a thread of its own, as one rank sees it.

A flight lands once, well or not; whatever its thread does later changes nothing any more. It takes part in no
collective: ranks learn of each other's flights where they meet anyway (saver.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from aurl_trainer.errors import AurlTrainerError, CheckpointError
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.incremental import Placed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Landing:
    """How a flight ended on one rank; plain values, told to the other ranks.

    Seconds: `stage` to copy, `upload` until this rank's packs were durable, `commit` from then to the
    manifest's. `error` None: well. `committing`: the manifest may have reached the store.
    """

    rank: int
    stage: float
    upload: float = 0.0
    commit: float = 0.0
    written: int = 0
    reused: int = 0
    committing: bool = False
    error: str | None = None
    message: str = ""


class Errand:
    """A daemon thread. What ends it is raised where it is waited for."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self._work = work
        self.fatal: BaseException | None = None
        self._begin = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._begin.set()

    def _run(self) -> None:
        # Else it keeps the interpreter for a while, and whoever starts it waits for that.
        self._begin.wait()
        try:
            self._work()
        except BaseException as error:
            self.fatal = error

    def join(self, seconds: float) -> bool:
        """Whether it has ended within so many seconds."""
        self._thread.join(max(0.0, min(seconds, threading.TIMEOUT_MAX)))
        if self.fatal is not None:
            raise self.fatal
        return not self._thread.is_alive()


class Flight:
    """A save under way. `work` does it and returns how it went; `after` follows where it went well.

    It has so many `seconds`; `deadline` is their end, by time.monotonic. `work` sets `committing` before the
    manifest may exist, and `placed` to what this rank's packs hold.
    """

    def __init__(
        self,
        name: CheckpointName,
        rank: int,
        stage: float,
        seconds: float,
        work: Callable[[Flight], Landing],
        after: Callable[[], None],
    ) -> None:
        self.name = name
        self.committing = False
        self.placed: dict[str, Placed] = {}
        self.began = time.monotonic()
        self.deadline = self.began + seconds
        self._rank = rank
        self._stage = stage
        self._seconds = seconds
        self._work = work
        self._after = after
        self._landing: Landing | None = None
        self._given_up: str | None = None
        self._changing = threading.Lock()
        self._landed = threading.Event()
        self._errand = Errand(self._run, f"save of step {name.step}")

    # -- the training thread

    @property
    def landing(self) -> Landing | None:
        """How it ended; None: it is under way. Raises what ended the thread, if anything did."""
        if self._errand.fatal is not None:
            raise self._errand.fatal
        if self._landing is None and time.monotonic() > self.deadline:
            self.fail(f"not durable within {self._seconds:g} s, which checkpoint.deadline allows a save")
        return self._landing

    def give_up(self, why: str) -> None:
        """Asks the thread to stop; it lands as failed when it has, unless its manifest was on the way."""
        self._given_up = self._given_up or why

    def fail(self, why: str) -> None:
        """It counts as failed from now on, whatever the thread still does."""
        self.give_up(why)
        self._land(self._failed("CheckpointError", why))

    def wait(self, seconds: float) -> None:
        """Returns when it has landed, or after so many seconds."""
        self._landed.wait(seconds)

    def join(self, seconds: float) -> bool:
        """Whether the thread has ended, what follows a landing included, within so many seconds."""
        return self._errand.join(seconds)

    # -- its own thread

    def check(self) -> None:
        """Raises CheckpointError when the save was given up."""
        if self._given_up is not None:
            raise CheckpointError(self._given_up)

    def _run(self) -> None:
        try:
            self._land(self._work(self))
        except AurlTrainerError as error:
            self._land(self._failed(type(error).__name__, str(error)))
        except Exception as error:  # a defect of ours costs a save, never the run
            log.exception("a defect in saving step %d", self.name.step)
            self._land(self._failed("CheckpointError", f"a defect: {type(error).__name__}: {error}"))
        finally:
            self._landed.set()
        self._work = _gone  # lets go of the staged bytes
        if self._landing is not None and self._landing.error is None:
            try:
                self._after()
            except Exception:
                log.exception("a defect after saving step %d", self.name.step)

    def _failed(self, kind: str, message: str) -> Landing:
        return Landing(self._rank, self._stage, committing=self.committing, error=kind, message=message)

    def _land(self, landing: Landing) -> None:
        with self._changing:
            if self._landing is None:
                self._landing = landing
                self._landed.set()


def _gone(_: Flight) -> Landing:
    raise AssertionError("a flight takes off once")
