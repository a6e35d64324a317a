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

    Seconds: `stage` to copy, `held` until the upload could begin, `upload` until this rank's packs were
    durable, `commit` from then to the manifest's. `error` None: well. `committing`: the manifest may have
    reached the store.
    """

    rank: int
    stage: float
    held: float = 0.0
    upload: float = 0.0
    commit: float = 0.0
    written: int = 0
    reused: int = 0
    committing: bool = False
    error: str | None = None
    message: str = ""


class Errand:
    """A daemon thread. What ends it is raised where it is waited for; `refused` says why there is none."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self._work = work
        self.fatal: BaseException | None = None
        self.refused: str | None = None
        self._begin = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # by the system
            self.refused = f"no thread could be started (limit of processes, or memory): {error}"
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
        if self.refused is not None:
            return True
        self._thread.join(max(0.0, min(seconds, threading.TIMEOUT_MAX)))
        if self.fatal is not None:
            raise self.fatal
        return not self._thread.is_alive()


class Flight:
    """A save under way. `work` does it and returns how it went; `after` follows where it went well. Where no
    thread can be started it has landed at once, as failed.

    It has so many `seconds`; `deadline` is their end, by time.monotonic. `work` sets `committing` before the
    manifest may exist, and `placed` to what this rank's packs hold. With `behind`, which names what has to
    end at the store before, `work` begins only after `release`.
    """

    def __init__(
        self,
        name: CheckpointName,
        rank: int,
        stage: float,
        seconds: float,
        work: Callable[[Flight], Landing],
        after: Callable[[], None],
        behind: str | None = None,
    ) -> None:
        self.name = name
        self.committing = False
        self._worked = False
        self.placed: dict[str, Placed] = {}
        self._began = time.monotonic()
        self.deadline = self._began + seconds
        self._behind = behind
        self._released_at = self._began if behind is None else None
        self._going = threading.Event()
        if behind is None:
            self._going.set()
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
        if self._errand.refused is not None:
            self._let_go()
            self._land(self._failed("CheckpointError", self._errand.refused))

    # -- the training thread

    @property
    def landing(self) -> Landing | None:
        """How it ended; None: it is under way. Raises what ended the thread, if anything did."""
        if self._errand.fatal is not None:
            raise self._errand.fatal
        if self._landing is None and time.monotonic() > self.deadline:
            why = f"not durable within {self._seconds:g} s, which checkpoint.deadline allows a save"
            self.fail(why if self.released else f"{why}: {self._behind} hangs in the store")
        return self._landing

    @property
    def released(self) -> bool:
        """Whether the upload could begin."""
        return self._released_at is not None

    @property
    def working(self) -> bool:
        """Whether the thread may still read what was staged."""
        return self.released and not self._worked

    @property
    def held(self) -> float:
        """Seconds until the upload could begin."""
        return (self._released_at or time.monotonic()) - self._began

    @property
    def uploading(self) -> float:
        """Seconds since the upload could begin; 0: it could not yet."""
        return time.monotonic() - self._released_at if self._released_at is not None else 0.0

    def release(self) -> None:
        """What had to end before has ended, on every rank."""
        if self._released_at is None:
            self._released_at = time.monotonic()
            self._going.set()

    def give_up(self, why: str) -> None:
        """Asks the thread to stop; it lands as failed when it has, unless its manifest was on the way."""
        self._given_up = self._given_up or why
        self._going.set()

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
            landing = self._outcome()
        except BaseException:
            self._landed.set()
            raise
        self._let_go()
        self._land(landing)
        if self._landing is landing and landing.error is None:
            try:
                self._after()
            except Exception:
                log.exception("a defect after saving step %d", self.name.step)

    def _let_go(self) -> None:
        """Before the landing: whoever hears of it may stage the next save."""
        self._work = _gone
        self._worked = True

    def _outcome(self) -> Landing:
        try:
            self._going.wait()
            self.check()
            return self._work(self)
        except AurlTrainerError as error:
            return self._failed(type(error).__name__, str(error))
        except Exception as error:  # a defect of ours costs a save, never the run
            log.exception("a defect in saving step %d", self.name.step)
            return self._failed("CheckpointError", f"a defect: {type(error).__name__}: {error}")

    def _failed(self, kind: str, message: str) -> Landing:
        return Landing(
            self._rank, self._stage, self.held, committing=self.committing, error=kind, message=message
        )

    def _land(self, landing: Landing) -> None:
        with self._changing:
            if self._landing is None:
                self._landing = landing
                self._landed.set()


def _gone(_: Flight) -> Landing:
    raise AssertionError("a flight takes off once")
