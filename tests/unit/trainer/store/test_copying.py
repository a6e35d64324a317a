"""Copies between stores: whole, verified on the way, resumable, and never referring to another place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aurl_trainer.errors import CheckpointError, DamagedError, RefusedError
from aurl_trainer.store import copying
from aurl_trainer.store.copying import Copied, copy
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.names import Fence, GenerationId
from aurl_trainer.store.format.sealed import seal
from aurl_trainer.store.location import place
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.store.faulty import Died, FaultyFileSystem
from tests.unit.trainer.store.made import flip, open_run, save


@pytest.fixture
def source(tmp_path: Path) -> tuple[RunStore, Manifest]:
    """A run whose second save refers to a pack of the first."""
    store, claim = open_run(str(tmp_path / "source"))
    first = save(store, claim.id, 1, 10)
    return store, save(store, claim.id, 2, 20, 1.5, like=first)


def do(store: RunStore, manifest: Manifest, url: str, *, any_run: bool = False) -> Copied:
    return copy(store, manifest.checkpoint, RunStore(Location(url)), lambda n: None, any_run=any_run)


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_what_a_copy_refers_to_is_copied(
    source: tuple[RunStore, Manifest], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "BLOCK_BYTES", 37)  # no chunk fits into one block
    store, manifest = source
    url = str(tmp_path / "copy") if kind == "file" else f"memory:/{tmp_path}/copy"
    done = do(store, manifest, url)
    assert (done.written, done.there) == (2, 0)
    store.location.delete_folder("packs/" + str(store.valid()[0]))  # the original may go
    target = RunStore(Location(url))
    assert target.valid() == [manifest.checkpoint]
    assert verify(target, manifest.checkpoint).good
    assert target.manifest_bytes(manifest.checkpoint) == store.manifest_bytes(manifest.checkpoint)
    again, claim = open_run(url)
    assert claim.next_number == 3, "a run goes on from the copy"
    assert all(p.path.startswith("packs/") for p in again.manifest(manifest.checkpoint).packs)


def test_a_copy_goes_on_where_it_was_interrupted(
    source: tuple[RunStore, Manifest],
) -> None:
    store, manifest = source
    stop_at = 0
    while True:
        FaultyFileSystem.clear()

        def stop(number: int, kind: str, path: str, at: int = stop_at) -> None:
            if number >= at:
                raise Died

        FaultyFileSystem.reset(stop)
        died = False
        try:
            do(store, manifest, "faulty://copy")
        except Died:
            died = True
        FaultyFileSystem.reset()
        target = RunStore(Location("faulty://copy"))
        for name in target.valid():
            assert verify(target, name).good, f"stopped at operation {stop_at}: it counts and is not whole"
        done = do(store, manifest, "faulty://copy")
        assert done.written + done.there == 2
        assert verify(RunStore(Location("faulty://copy")), manifest.checkpoint).good
        if not died:
            assert done.there == 2, "whole packs were copied again"
            break
        stop_at += 1
    FaultyFileSystem.clear()
    assert stop_at >= 5, f"only {stop_at} operations were tried"


def test_damage_is_found_on_the_way_and_nothing_counts(
    source: tuple[RunStore, Manifest], tmp_path: Path
) -> None:
    store, manifest = source
    path = manifest.packs[0].path
    data = bytearray(store.location.get(path))
    data[-1] ^= 1
    store.location.put(path, bytes(data))
    with pytest.raises(DamagedError, match=r"b\.noise in packs/.*its hash does not match"):
        do(store, manifest, str(tmp_path / "copy"))
    assert RunStore(Location(str(tmp_path / "copy"))).committed() == []
    store.location.delete([path])
    with pytest.raises(CheckpointError, match="missing, or removed while it was copied"):
        do(store, manifest, str(tmp_path / "copy"))


def test_a_damaged_pack_at_the_target_is_replaced(source: tuple[RunStore, Manifest], tmp_path: Path) -> None:
    store, manifest = source
    place = Location(str(tmp_path / "copy"))
    path = manifest.packs[0].path
    place.put(path, bytes(manifest.packs[0].bytes))
    assert do(store, manifest, str(tmp_path / "copy")).written == 2
    assert verify(RunStore(place), manifest.checkpoint).good


def test_a_copy_that_fails_takes_no_pack_that_others_use(
    source: tuple[RunStore, Manifest], tmp_path: Path
) -> None:
    """The older checkpoint refers to another chunk of the pack than the damaged one."""
    store, manifest = source
    url = str(tmp_path / "copy")
    do(store, manifest, url)
    target = RunStore(Location(url))
    path, chunk = manifest.packs[0].path, manifest.tensors["b.noise"].chunks[0]
    flip(target.location, path, chunk.at)
    flip(store.location, path, chunk.at + chunk.bytes - 1)
    before = target.location.get(path)
    with pytest.raises(DamagedError, match=r"b\.noise in packs/.*its hash does not match"):
        do(store, manifest, url)
    assert target.location.get(path) == before, "what else is in the pack was lost"
    assert target.location.partials("packs") == []


@pytest.fixture
def far(source: tuple[RunStore, Manifest]) -> Iterator[RunStore]:
    """The same run where reads can go wrong."""
    store, _ = source
    FaultyFileSystem.clear()
    place = Location("faulty://source")
    for name in store.location.names(""):
        place.put(name, store.location.get(name))
    yield RunStore(place)
    FaultyFileSystem.clear()


@pytest.mark.parametrize("bad", [1, 2])
def test_no_bad_read_of_a_manifest_reaches_the_target(
    source: tuple[RunStore, Manifest], far: RunStore, bad: int
) -> None:
    """The first reading is what is copied by; of those after it `bad` are wrong: one is no verdict."""
    name = source[1].checkpoint
    do(far, source[1], "faulty://copy")
    target = RunStore(Location("faulty://copy"))
    whole = target.manifest_bytes(name)
    met: list[str] = []

    def reading(path: str, data: bytes) -> bytes:
        if not path.endswith(f"/source/{name.manifest}"):
            return data
        met.append(path)
        return data[:-90] + bytes([data[-90] ^ 1]) + data[-89:] if 2 <= len(met) <= 1 + bad else data

    FaultyFileSystem.reading = staticmethod(reading)
    if bad == 1:
        copy(RunStore(far.location), name, target, lambda size: None, any_run=False)
    else:
        with pytest.raises(DamagedError, match="digest does not match"):
            copy(RunStore(far.location), name, target, lambda size: None, any_run=False)
    assert len(met) == 3, f"expected the manifest to be read three times, not {len(met)}"
    assert target.manifest_bytes(name) == whole, "the target's own manifest was replaced by a damaged one"


@pytest.mark.parametrize("there", [False, True])
def test_only_a_manifest_that_the_copy_brought_is_taken_back(
    source: tuple[RunStore, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    store, manifest = source
    url, publish = str(tmp_path / "copy"), Location.publish
    target = RunStore(Location(url))
    if there:
        do(store, manifest, url)

    def removed(place: Location, name: str, data: bytes) -> None:
        publish(place, name, data)
        place.delete([manifest.packs[0].path])

    monkeypatch.setattr(Location, "publish", removed)
    with pytest.raises(CheckpointError, match=r"while it was copied; copy again: .* is missing"):
        do(store, manifest, url)
    assert target.committed() == [manifest.checkpoint] * there
    monkeypatch.undo()
    do(store, manifest, url)
    assert verify(target, manifest.checkpoint).good, "a second copy does not mend it"


def test_where_a_run_saves_nothing_is_copied(source: tuple[RunStore, Manifest], tmp_path: Path) -> None:
    store, manifest = source
    open_run(str(tmp_path / "live"))
    with pytest.raises(RefusedError, match="a run saves its own checkpoints there"):
        do(store, manifest, str(tmp_path / "live"))


@pytest.fixture
def fifth(tmp_path: Path) -> tuple[RunStore, Manifest]:
    """What the fifth generation of a run has saved."""
    for _ in range(5):
        store, claim = open_run(str(tmp_path / "fifth"))
    return store, save(store, claim.id, 7, 70)


def test_a_run_that_begins_while_packs_are_copied_stays_alone(
    fifth: tuple[RunStore, Manifest], tmp_path: Path
) -> None:
    store, manifest = fifth
    url, target = str(tmp_path / "target"), RunStore(Location(str(tmp_path / "target")))

    def begin(size: int) -> None:
        if not target.fences():
            open_run(url, run="other")

    with pytest.raises(RefusedError, match="a run saves its own checkpoints there"):
        copy(store, manifest.checkpoint, target, begin, any_run=True)
    assert target.committed() == []


@pytest.mark.parametrize("lag", [0, 8])
def test_a_manifest_is_taken_back_if_a_run_began_as_it_came(
    fifth: tuple[RunStore, Manifest], lag: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the last look no listing shows the run; when one shows the manifest, one shows the run."""
    monkeypatch.setattr(place, "LOOKS", (0.0, 0.0))
    FaultyFileSystem.clear()
    store, manifest = fifth
    target = RunStore(Location("faulty://target"))
    claim = Fence(GenerationId(1, "5f3a9c01"))

    met: list[list[Fence]] = []

    def begin(*_: object) -> None:
        if not met:
            target.location.put(claim.object, seal({"run": "other"}))
            met.append(target.fences())

    FaultyFileSystem.lag = lag

    def fault(number: int, kind: str, path: str) -> None:
        if "/manifests/" in path:
            begin()

    if not lag:
        FaultyFileSystem.reset(fault)
    with pytest.raises(RefusedError, match=r"began there while v000007-.* was copied, which was taken back"):
        copy(store, manifest.checkpoint, target, begin if lag else lambda size: None, any_run=True)
    assert bool(met[0]) == (not lag)
    FaultyFileSystem.lag = 0
    assert target.committed() == [] and [f.id for f in target.fences()] == [claim.id]
    FaultyFileSystem.clear()


def test_a_run_that_goes_on_from_the_copy_at_once_keeps_it(
    fifth: tuple[RunStore, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest = fifth
    url, publish = str(tmp_path / "target"), Location.publish

    def published(place: Location, name: str, data: bytes) -> None:
        publish(place, name, data)
        if name == manifest.checkpoint.manifest:
            open_run(url, run="other")

    monkeypatch.setattr(Location, "publish", published)
    do(store, manifest, url, any_run=True)
    target = RunStore(Location(url))
    assert target.valid() == [manifest.checkpoint]
    assert target.fences()[-1].resumed == manifest.checkpoint


def test_other_configurations_only_where_any_are_collected(
    source: tuple[RunStore, Manifest], tmp_path: Path
) -> None:
    store, manifest = source
    url = str(tmp_path / "models")
    do(store, manifest, url)
    other, claim = open_run(str(tmp_path / "other"))
    wider = save(other, claim.id, 1, 5, identity={"seed": 1, "model": {"dim": 128}})
    with pytest.raises(RefusedError, match=r"another configuration \(model\.dim: 64 -> 128\)"):
        do(other, wider, url)
    do(other, wider, url, any_run=True)
    target = RunStore(Location(url))
    assert {str(n) for n in target.committed()} == {manifest.name, wider.name}
