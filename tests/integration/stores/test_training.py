"""Training over a store that turns bad under it and recovers: a failed save is told, and costs no more."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from aurl_trainer.contract import Cause, Progress
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.integration.stores.conftest import Faulty
from tests.integration.stores.proxy import PASS, Answer, Seen
from tests.integration.stores.test_faults import answer
from tests.unit.trainer.engine.runs import STEPS, Watch, run, wait_for_saves

pytestmark = pytest.mark.processes

BAD, GOOD = 5, 7
"""After these steps the store turns bad, and good again: only the save at step 6 lies between."""


class Weather(Watch):
    """Makes something happen after a step."""

    def __init__(self, events: dict[int, Callable[[], None]]) -> None:
        super().__init__()
        self._events = dict(events)

    def update(self, progress: Progress) -> None:
        super().update(progress)
        self._events.pop(progress.step, lambda: None)()


def trained_through(
    uri: str, monkeypatch: pytest.MonkeyPatch, turn_bad: Callable[[], None], recover: Callable[[], None]
) -> str:
    """Trains to the end, and returns what was told of the save that failed."""
    wait_for_saves(monkeypatch)

    def look_and_recover() -> None:
        store = RunStore(Location(uri))
        newest = store.valid()[-1]
        assert newest.step < BAD and verify(store, newest).good, "the newest checkpoint is not whole"
        recover()

    watch = Weather({BAD: turn_bad, GOOD: look_and_recover})
    try:
        outcome, _ = run(uri, watch)
    finally:
        torch.use_deterministic_algorithms(False)
    assert outcome.step == STEPS
    told = [n for n in watch.progress[-1].noted if n.cause == Cause.SAVE_FAILED]
    assert [n.step for n in told] == [6], f"expected one incident, of step 6, found {told}"
    store = RunStore(Location(uri))
    assert store.valid()[-1].step == STEPS, "saving did not go on when the store was good again"
    assert all(verify(store, name).good for name in store.valid())
    left = {n.partition("/")[0] for n in store.location.names("packs")}
    needed = {p.path.split("/")[1] for n in store.committed() for p in store.manifest(n).packs}
    assert left == needed, "what the failed save left is still there"
    assert "\n" not in told[0].message and "Traceback" not in told[0].message
    return told[0].message


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting a file system needs root: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filler = disk / "filler"

    def fill() -> None:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    told = trained_through(str(disk / "run"), monkeypatch, fill, filler.unlink)
    assert "no space is left there; make room there, or give the run another place" in told


def test_a_file_system_that_becomes_read_only(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)

    told = trained_through(str(disk / "run"), monkeypatch, lambda: remount("ro"), lambda: remount("rw"))
    assert "Read-only file system; the run must be allowed to list, read, write and delete there" in told


def test_a_folder_that_may_not_be_written_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "run"

    def allow(mode: int) -> None:
        for folder in (place / "packs", place / "manifests"):
            folder.chmod(mode)

    with bound_by_permissions():
        told = trained_through(str(place), monkeypatch, lambda: allow(0o555), lambda: allow(0o755))
    assert "Permission denied; the run must be allowed to list, read, write and delete there" in told


def test_a_store_that_takes_the_right_to_write_away(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = {"s3": "AccessDenied", "gcs": "", "azure": "AuthorizationFailure"}
    refused = answer(faulty.kind, 403, codes[faulty.kind], "not any more")

    def rule(seen: Seen) -> Answer:
        return refused if seen.writes else PASS

    told = trained_through(
        faulty.uri, monkeypatch, lambda: faulty.proxy.reset(rule), lambda: faulty.proxy.reset()
    )
    assert "the run must be allowed to list, read, write and delete there" in told


CAP_DAC_OVERRIDE = 1
_VERSION = 0x20080522


@contextlib.contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Takes from this thread, and those that it starts, root's right to write where nobody may."""
    if os.geteuid() != 0:
        yield
        return
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their upper halves
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, sets) == 0, os.strerror(ctypes.get_errno())
    before = sets[0]
    sets[0] = before & ~(1 << CAP_DAC_OVERRIDE)
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
