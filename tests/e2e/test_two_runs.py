"""Two `aurl run` at one place: the second is refused while the first lives; told to take over, it goes on.

Then the first cannot commit any more, and ends with words that say why. Real processes, one place on disk.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from aurl_trainer.contract import Env, ExitCode
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from bench.chaos.job import job, log, start, write_music

pytestmark = [pytest.mark.processes, pytest.mark.timeout(1800)]

PATIENCE = 800.0
"""Seconds: as long as a loaded machine may need; conditions are waited for, not times."""


class Runs:
    """`aurl run` with the same job, music and place, each in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = RunStore(Location(str(folder / "shared")))
        self._music = write_music(folder / "music")
        self._calls: list[subprocess.Popen[bytes]] = []

    def begin(self, name: str, *, take_over: bool = False) -> subprocess.Popen[bytes]:
        place = {"uri": str(self.folder / "shared"), "every": 5, "take_over": take_over}
        file = job(self.folder / name, self._music, nodes=1, steps=1_000_000, checkpoint=place,
                   data={"cache": str(self.folder / "cache")})  # fmt: skip
        self._calls.append(start(file, self.folder / name / "run"))
        return self._calls[-1]

    def log(self, name: str) -> str:
        return log(self.folder / name / "run")

    def until(self, name: str, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"expected {what}; {name} says:\n{self.log(name)}"
            time.sleep(0.2)

    def ends(self, name: str, call: subprocess.Popen[bytes]) -> int:
        self.until(name, f"{name} to end", lambda: call.poll() is not None)
        return call.returncode

    def stop(self) -> None:
        for call in self._calls:
            with contextlib.suppress(psutil.Error):
                for process in psutil.Process(call.pid).children(recursive=True):
                    process.kill()
            call.kill()
            call.wait()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    monkeypatch.setenv(Env.PRESENCE, "5")
    runs = Runs(tmp_path)
    yield runs
    runs.stop()


def test_the_second_is_refused_and_may_take_over(runs: Runs) -> None:
    first = runs.begin("first")
    runs.until("first", "two checkpoints of the first run", lambda: len(runs.store.valid()) >= 2)
    before = runs.store.fences()

    second = runs.begin("second")
    assert runs.ends("second", second) == ExitCode.REFUSED, runs.log("second")
    said = runs.log("second")
    assert "is training there; give this run another checkpoint.uri, stop the other, or set" in said, said
    assert "training.checkpoint.take_over" in said and "Traceback" not in said, said
    assert runs.store.fences() == before, "the run that was refused has taken a generation"
    assert first.poll() is None, f"the first run has ended:\n{runs.log('first')}"

    newest = runs.store.valid()[-1]
    third = runs.begin("third", take_over=True)
    assert runs.ends("first", first) == ExitCode.REFUSED, runs.log("first")
    said = runs.log("first")
    assert "has taken over from this one" in said and "Traceback" not in said, said

    def saved() -> bool:
        return len(runs.store.fences()) > len(before) and (
            runs.store.valid()[-1].generation > newest.generation
        )

    runs.until("third", "a checkpoint of the run that took over", saved)
    assert third.poll() is None, runs.log("third")
    third.send_signal(signal.SIGINT)
    assert runs.ends("third", third) == ExitCode.NOT_FINISHED, runs.log("third")
    last = runs.store.valid()[-1]
    assert last.step > newest.step, "it did not go on from where the first one was"
    assert verify(runs.store, last).good
    own = [n for n in runs.store.committed() if n.generation > newest.generation]
    assert all(n in runs.store.valid() for n in own), "what was saved last does not count"
