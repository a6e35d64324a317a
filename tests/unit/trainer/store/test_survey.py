"""What retention knows of many checkpoints: little of each, from the index where that tells all of it."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.catalog.found import find
from aurl_trainer.store.catalog.index import OBJECT, READERS, read_index, renew_index
from aurl_trainer.store.catalog.scan import Run
from aurl_trainer.store.format.manifest import Head, Manifest
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.sealed import seal, unseal
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.passes import collect, retain
from aurl_trainer.store.retention.survey import survey
from aurl_trainer.store.run_store import REMEMBERED, RunStore
from aurl_trainer.store.tags import set_tag
from aurl_trainer.store.verify import verify
from tests.unit.trainer.store.faulty import FaultyFileSystem
from tests.unit.trainer.store.made import flip, open_run, save

ALL = KeepConfig(latest=100, best=0, grace_seconds=0)
TWO = KeepConfig(latest=2, best=0, grace_seconds=0)
WAIT = 30.0


class Counting(RunStore):
    """Counts how often each manifest is read."""

    def __init__(self, uri: str) -> None:
        super().__init__(Location(uri))
        self.read: Counter[int] = Counter()

    def manifest_bytes(self, name: CheckpointName) -> bytes:
        self.read[name.number] += 1
        return super().manifest_bytes(name)


def rewritten(store: RunStore, **changes: Any) -> None:
    """The index as another Aurl wrote it: None takes a field from every row."""
    value = unseal(store.location.get(OBJECT), OBJECT)
    for row in value["checkpoints"]:
        row.update(changes)
        for field in [f for f, v in changes.items() if v is None]:
            del row[field]
    store.location.put(OBJECT, seal(value))


def test_a_survey_reads_no_manifest_that_the_index_tells_of(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path))
    manifests = [save(store, claim.id, n, 10 * n, float(n)) for n in range(1, 6)]
    renew_index(store)
    manifests.append(save(store, claim.id, 6, 60, 6.0, like=manifests[0]))
    counting = Counting(str(tmp_path))
    found = survey(counting)
    assert found is not None and counting.read == {6: 1}
    for committed, manifest in zip(found.checkpoints, manifests, strict=True):
        folders = {p.path.rpartition("/")[0] for p in manifest.packs}
        told = (committed.name, committed.at, dict(committed.metrics), set(committed.folders))
        assert told == (manifest.checkpoint, manifest.at, dict(manifest.metrics), folders)


def test_a_pass_without_an_index_reads_each_manifest_once_and_the_next_none(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path))
    for number in range(1, 13):
        save(store, claim.id, number, number)
    counting = Counting(str(tmp_path))
    retain(counting, claim.id, ALL)
    assert counting.read == dict.fromkeys(range(1, 13), 1)
    again = Counting(str(tmp_path))
    retain(again, claim.id, TWO, orphans_only=True)
    retain(again, claim.id, TWO)
    assert again.read == {}, "the index tells all of it"
    assert [n.number for n in store.committed()] == [11, 12]


def test_packs_that_only_the_index_tells_of_stay(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path))
    first = save(store, claim.id, 1, 1)
    for number in (2, 3, 4):
        save(store, claim.id, number, number, like=first)
    renew_index(store)
    counting = Counting(str(tmp_path))
    retain(counting, claim.id, TWO)
    assert counting.read == {} and [n.number for n in store.committed()] == [3, 4]
    assert [n.number for n in sorted(store.pack_folders(), key=lambda n: n.age)] == [1, 3, 4]
    assert all(verify(store, name).good for name in store.valid())


def test_the_index_of_an_older_aurl_serves_find_and_is_completed_by_retention(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path))
    for number in (1, 2, 3):
        save(store, claim.id, number, number, float(number))
    renew_index(store)
    rewritten(store, folders=None, version=None)
    assert find(Run("bach", store.location)).read == 0, "older rows tell all that find shows"
    counting = Counting(str(tmp_path))
    retain(counting, claim.id, ALL)
    assert counting.read == {1: 1, 2: 1, 3: 1}, "retention took its word for what it does not say"
    assert all(e.whole for e in read_index(store.location).values())


def test_nothing_goes_while_the_index_tells_of_a_newer_format(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path))
    for number in (1, 2, 3):
        save(store, claim.id, number, number)
    renew_index(store)
    rewritten(store, version=99)
    retain(store, claim.id, TWO)
    assert len(store.committed()) == 3
    with pytest.raises(CheckpointError, match="written by a newer Aurl"):
        collect(store, TWO)


def test_an_index_that_is_refused_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, claim = open_run(str(tmp_path))
    for number in (1, 2, 3):
        save(store, claim.id, number, number)
    get = Location.get

    def refused(self: Location, name: str, *where: int) -> bytes:
        if name == OBJECT:
            raise CheckpointError("no right to read that")
        return get(self, name, *where)

    monkeypatch.setattr(Location, "get", refused)
    retain(store, claim.id, TWO)
    assert [n.number for n in store.committed()] == [2, 3]


def test_what_the_index_lacks_is_read_by_several_at_once(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path))
    for number in range(1, 4 * READERS):
        save(store, claim.id, number, number)
    meet = threading.Barrier(READERS, timeout=WAIT)
    now, most, lock = 0, 0, threading.Lock()

    class Slow(RunStore):
        def manifest_bytes(self, name: CheckpointName) -> bytes:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            if name.number <= READERS:
                meet.wait()
            with lock:
                now -= 1
            return super().manifest_bytes(name)

    found = survey(Slow(Location(str(tmp_path))))
    assert found is not None and len(found.checkpoints) == 4 * READERS - 1
    assert most == READERS, "they are read one after the other, or without a bound"


def test_a_survey_that_is_to_stop_reads_no_further(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path))
    for number in (1, 2, 3):
        save(store, claim.id, number, number)
    counting = Counting(str(tmp_path))
    assert survey(counting, stop=lambda: True) is None and counting.read == {}
    retain(counting, claim.id, TWO, stop=lambda: True)
    assert len(store.committed()) == 3


def test_only_the_newest_manifests_are_kept_in_memory(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path))
    for number in range(1, 9):
        save(store, claim.id, number, number)
    retain(store, claim.id, ALL)
    for name in reversed(store.committed()):
        store.manifest(name)
    newest = store.committed()[-REMEMBERED:]
    assert sorted(store._manifests, key=lambda n: n.age) == newest


def test_a_head_says_what_the_manifest_says_and_sees_the_same_damage(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path))
    manifest = save(store, claim.id, 1, 1, 1.0)
    data = store.manifest_bytes(manifest.checkpoint)
    head = Head.parse(data, manifest.name)
    assert head.model_dump() == manifest.model_dump(exclude={"tensors"})
    assert not isinstance(head, Manifest) and manifest.folders == (manifest.name,)
    value = unseal(data, "")
    for bad in (
        data[:-3], seal({**value, "step": -1}), seal({**value, "other": 1}), seal({**value, "name": "x"}),
        seal({k: v for k, v in value.items() if k != "tensors"}),
    ):  # fmt: skip
        with pytest.raises(DamagedError):
            Head.parse(bad, manifest.name)
    with pytest.raises(CheckpointError, match="written by a newer Aurl"):
        Head.parse(seal({**value, "version": 99}), manifest.name)


def test_a_damaged_manifest_is_none_of_the_best_until_it_is_read(tmp_path: Path) -> None:
    """A damage that nobody has met costs a place among those that stay, never one of them."""
    store, claim = open_run(str(tmp_path))
    for number in (1, 2, 3):
        save(store, claim.id, number, number, float(number), at=1000.0)
    renew_index(store)
    flip(store.location, store.committed()[0].manifest)
    keep = KeepConfig(latest=1, best=1, grace_seconds=0)
    retain(RunStore(store.location), claim.id, keep)
    assert [n.number for n in store.committed()] == [1, 3]


@pytest.mark.parametrize("bad", [1, 2])
def test_one_bad_read_of_a_manifest_is_no_damage(bad: int) -> None:
    """Taken for damaged, the best is none of the best any more, and goes."""
    FaultyFileSystem.clear()
    store, claim = open_run("faulty://run")
    names = [save(store, claim.id, n, n, float(n), at=1000.0).checkpoint for n in (1, 2, 3)]
    met: list[str] = []

    def reading(path: str, data: bytes) -> bytes:
        if path.endswith(names[0].manifest) and len(met) < bad:
            met.append(path)
            return data[:-1]
        return data

    FaultyFileSystem.reading = staticmethod(reading)
    retain(RunStore(store.location), claim.id, KeepConfig(latest=1, best=1, grace_seconds=0))
    assert len(met) == bad
    assert store.committed() == ([names[0], names[2]] if bad == 1 else names[1:])
    FaultyFileSystem.clear()


def test_what_a_damaged_manifest_may_refer_to_stays_with_it(tmp_path: Path) -> None:
    """A copy can mend the manifest; nothing can mend packs that went."""
    store, claim = open_run(str(tmp_path))
    first = save(store, claim.id, 1, 1)
    other = save(store, claim.id, 2, 2).checkpoint
    kept = save(store, claim.id, 3, 3, like=first).checkpoint
    data = store.manifest_bytes(kept)
    flip(store.location, kept.manifest)
    set_tag(store, "paper", kept)
    later = [save(store, claim.id, n, n).checkpoint for n in (4, 5, 6)]
    retain(RunStore(store.location), claim.id, TWO)
    assert store.committed() == [kept, *later[1:]]
    assert set(store.pack_folders()) == {first.checkpoint, other, kept, *later[1:]}
    store.location.put(kept.manifest, data)
    assert verify(RunStore(store.location), kept).good
    retain(RunStore(store.location), claim.id, TWO)
    assert set(store.pack_folders()) == {first.checkpoint, kept, *later[1:]}, "they stay when it is mended"
