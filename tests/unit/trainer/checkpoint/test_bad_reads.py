"""Reads that go wrong while the store has all that was written, or lost one object only."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.store.location import place
from aurl_trainer.store.location.patience import Patience
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.removal import all_but_best
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.checkpoint.small import checkpointer, hash_of, make, state, steps, train
from tests.unit.trainer.store.faulty import FaultyFileSystem

URI = "faulty://run"


@pytest.fixture
def hashes() -> Iterator[dict[int, str]]:
    """A run saved at steps 1 and 2: the hash of each state."""
    FaultyFileSystem.clear()
    saver = checkpointer(URI)
    run = make(1)
    saver.open(state(*run))
    found = {}
    for step in (1, 2):
        train(*run, step)
        saver.save(step, state(*run), {}, {"val_nll": 3.0 - step})
        found[step] = hash_of(*run)
    yield found
    FaultyFileSystem.clear()


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]


def first(folder: str, damage: Callable[[bytes], bytes]) -> list[str]:
    """The first read from each object of the newest checkpoint in this folder is damaged; which were."""
    name, met = str(RunStore(Location(URI)).valid()[-1]), []

    def reading(path: str, data: bytes) -> bytes:
        if f"/{folder}/{name}" not in path or path in met:
            return data
        met.append(path)
        return damage(data)

    FaultyFileSystem.reading = staticmethod(reading)
    return met


@pytest.mark.parametrize("damage", [flipped, lambda data: data[:-1]], ids=["a flipped bit", "cut short"])
@pytest.mark.parametrize("folder", ["manifests", "packs"])
def test_one_bad_read_costs_no_checkpoint(
    hashes: dict[int, str], folder: str, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    fresh = make(9)
    again = checkpointer(URI)
    met = first(folder, damage) if folder == "packs" else []
    if folder == "manifests":  # opening looks at the newest manifest before it loads it
        again._store.check_trained()
        met = first(folder, damage)
    restored = again.open(state(*fresh)).restored
    again.saver.tidy()
    assert met, "no read was bad, so the test shows nothing"
    assert restored is not None and restored.step == 2, "a whole checkpoint was passed over"
    assert hash_of(*fresh) == hashes[2] and restored.damaged == []
    assert "checkpoint of step 2 is read once more" in caplog.text
    assert steps(URI) == [1, 2], "a whole checkpoint was voided"


@pytest.mark.parametrize("folder", ["manifests", "packs"])
def test_an_object_that_its_disk_cannot_read_is_passed_over(
    hashes: dict[int, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "Patience", lambda: Patience(attempts=3, first=0.001, longest=0.002))
    name = str(RunStore(Location(URI)).valid()[-1])

    def reading(path: str, data: bytes) -> bytes:
        if f"/{folder}/{name}" in path:
            raise OSError(errno.EIO, "Input/output error")
        return data

    FaultyFileSystem.reading = staticmethod(reading)
    fresh = make(9)
    again = checkpointer(URI)
    restored = again.open(state(*fresh)).restored
    again.saver.tidy()
    assert restored is not None and restored.step == 1
    assert hash_of(*fresh) == hashes[1]
    (damage,) = restored.damaged
    assert f"{folder}/{name}" in damage.message and "cannot be read: Input/output error" in damage.message


@pytest.mark.parametrize("folder", ["manifests", "packs"])
def test_one_bad_read_is_no_verdict(hashes: dict[int, str], folder: str) -> None:
    store = RunStore(Location(URI))
    met = first(folder, flipped)
    read: list[int] = []
    verdict = verify(store, store.valid()[-1], read.append)
    assert met and verdict.good, verdict.problems
    assert verdict.manifest is not None and sum(read) == verdict.manifest.stored_bytes
    met.clear()
    all_but_best(Location(URI), "small", 1, KeepConfig().by)
    assert met and steps(URI) == [2], "the best was taken for damaged"
