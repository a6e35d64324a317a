from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.config.reference import Best, Latest
from aurl_trainer.errors import CheckpointError, DamagedError, FencedError, GoneError, RefusedError
from aurl_trainer.store.choose import candidates
from aurl_trainer.store.format.manifest import VERSION
from aurl_trainer.store.format.names import CheckpointName, GenerationId
from aurl_trainer.store.format.reading import Wanted, stream
from aurl_trainer.store.format.sealed import seal
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.passes import retain
from aurl_trainer.store.retention.removal import everything
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify, verify_records
from tests.unit.trainer.store.faulty import Died, FaultyFileSystem
from tests.unit.trainer.store.made import IDENTITY, RUN, open_run, save


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "file" else f"memory:/{tmp_path}"


def keep(latest: int, best: int) -> KeepConfig:
    return KeepConfig(latest=latest, best=best, grace_seconds=0)


def steps(store: RunStore) -> list[int]:
    return [n.step for n in store.valid()]


def test_generations_and_numbers_only_grow(uri: str) -> None:
    store, first = open_run(uri)
    save(store, first.id, first.next_number, 10)
    save(store, first.id, first.next_number + 1, 20)
    store, second = open_run(uri)
    assert (second.id.number, second.next_number) == (2, 3)
    # What was numbered and removed keeps its number.
    save(store, second.id, 3, 30)
    retain(store, second.id, keep(1, 0))
    store, third = open_run(uri)
    assert (third.id.number, third.next_number) == (3, 4)
    store.location.delete([n.manifest for n in store.committed()])
    assert open_run(uri)[1].next_number == 4, "a number was given twice"


def test_a_later_generation_fences_the_earlier(uri: str) -> None:
    old, first = open_run(uri)
    save(old, first.id, 1, 10)
    new, second = open_run(uri)
    with pytest.raises(FencedError, match="generation 2 has taken over from generation 1"):
        save(old, first.id, 2, 20)
    save(new, second.id, 2, 15)
    assert steps(new) == [10, 15]


def test_a_commit_that_slips_through_is_void_for_every_reader(uri: str) -> None:
    old, first = open_run(uri)
    manifest = save(old, first.id, 1, 10)
    new, _second = open_run(uri)
    # The object arrives late, after its writer's last look at the generations.
    name = CheckpointName(2, 20, first.id)
    late = manifest.model_copy(update={"name": str(name), "number": 2, "step": 20})
    old.location.put(name.manifest, late.to_bytes())
    assert steps(new) == [10]
    assert [n.step for n in candidates(new, Latest())] == [10]
    assert steps(open_run(uri)[0]) == [10]


def test_the_fence_is_seen_even_when_it_appears_during_the_commit(uri: str) -> None:
    old, first = open_run(uri)
    put = old.location.put

    def slow_put(name: str, data: bytes) -> None:
        open_run(uri)
        put(name, data)

    old.location.put = slow_put  # type: ignore[method-assign]
    with pytest.raises(FencedError):
        save(old, first.id, 1, 10)
    assert steps(RunStore(Location(uri))) == []


def test_a_run_whose_place_was_deleted_learns_it_at_its_next_save(uri: str) -> None:
    store, claim = open_run(uri)
    save(store, claim.id, 1, 10)
    everything(Location(uri), RUN)
    with pytest.raises(GoneError, match="the place was deleted under this run") as error:
        save(store, claim.id, 2, 20)
    assert "\n" not in str(error.value)
    assert steps(store) == [], "a checkpoint was acknowledged whose earlier packs are gone"
    retain(store, claim.id, keep(1, 0))
    assert store.location.names("index") == [], "it writes on at a place that was deleted"


def test_a_place_that_is_deleted_during_a_commit_is_noticed(uri: str) -> None:
    store, claim = open_run(uri)
    put = store.location.put

    def slow_put(name: str, data: bytes) -> None:
        everything(Location(uri), RUN)
        put(name, data)

    store.location.put = slow_put  # type: ignore[method-assign]
    with pytest.raises(GoneError):
        save(store, claim.id, 1, 10)


def test_a_record_that_is_only_not_listed_is_no_place_that_was_deleted() -> None:
    FaultyFileSystem.clear()
    store, claim = open_run("faulty://late")
    try:
        FaultyFileSystem.lag = 50
        assert store.fences() == [], "expected listings not to show the record"
        store.check_fence(claim.id)
        store.location.delete([f"generations/{claim.id}.json"])
        with pytest.raises(GoneError):
            store.check_fence(claim.id)
    finally:
        FaultyFileSystem.clear()


def test_two_worlds_that_open_at_the_same_instant_have_one_winner(uri: str) -> None:
    one, two = RunStore(Location(uri)), RunStore(Location(uri))
    # Both have looked before either wrote: they take the same number.
    looked = {id(one): one.fences(), id(two): two.fences()}
    claims = []
    for store in (one, two):
        seen = looked[id(store)]
        real, store.fences = store.fences, lambda seen=seen: seen  # type: ignore[method-assign,misc]
        committed, store.committed = store.committed, lambda: []  # type: ignore[method-assign]
        claims.append(store.claim("run", IDENTITY, 1))
        store.fences, store.committed = real, committed  # type: ignore[method-assign]
    assert claims[0].id.number == claims[1].id.number == 1
    winner = max((0, 1), key=lambda i: claims[i].id)
    loser = 1 - winner
    stores = [one, two]
    stores[winner].settle(claims[winner], None, run="run", identity=IDENTITY)
    with pytest.raises(FencedError):
        stores[loser].settle(claims[loser], None, run="run", identity=IDENTITY)
    save(stores[winner], claims[winner].id, 1, 10)
    with pytest.raises(FencedError):
        save(stores[loser], claims[loser].id, 1, 10)
    assert steps(stores[loser]) == [10]


def test_the_losers_retention_touches_nothing_of_the_later_generation(uri: str) -> None:
    old, first = open_run(uri)
    for number in (1, 2, 3):
        save(old, first.id, number, number * 10)
    new, second = open_run(uri)
    save(new, second.id, 4, 40)
    before = new.location.names("")
    retain(old, first.id, keep(1, 0))
    assert new.location.names("") == before


def test_another_configuration_is_refused_by_its_fields(uri: str) -> None:
    other: dict[str, Any] = {"seed": 1, "model": {"dim": 128}, "loss": 2}
    store, claim = open_run(uri)
    before = store.location.names("")
    with pytest.raises(RefusedError, match=r"model\.dim: 64 -> 128") as error:
        open_run(uri, other)
    assert "loss: (absent) -> 2" in str(error.value)
    save(store, claim.id, 1, 10)
    with pytest.raises(RefusedError, match=r"model\.dim: 64 -> 128"):
        open_run(uri, other)
    assert store.location.names("generations") == [n.removeprefix("generations/") for n in before], (
        "it left marks"
    )


def test_retention_keeps_the_newest_and_the_best_and_removes_the_rest(uri: str) -> None:
    store, claim = open_run(uri)
    for number, nll in enumerate([3.0, 1.0, 2.0, 2.5, 2.6], start=1):
        save(store, claim.id, number, number * 10, nll)
        retain(store, claim.id, keep(2, 1))
    assert steps(store) == [20, 40, 50]
    assert len(store.location.names("packs")) == 3
    assert [n.step for n in candidates(store, Best())] == [20, 40, 50]


def test_retention_sweeps_what_interrupted_saves_left(tmp_path: Path) -> None:
    store, first = open_run(str(tmp_path))
    save(store, first.id, 1, 10)
    store.location.put(CheckpointName(2, 20, first.id).pack(0), b"half a pack")
    name = CheckpointName(2, 20, first.id)
    folder = tmp_path / "manifests"
    partials = [folder / f".{name}.json.0123abcd.partial", folder / f".{name}.json.partial"]  # one of old
    for partial in partials:
        partial.write_bytes(b"half")
    young = folder / f".{CheckpointName(9, 90, GenerationId(7, '00000000'))}.json.0123abcd.partial"
    young.write_bytes(b"somebody's, later")
    later = CheckpointName(9, 90, GenerationId(7, "00000000"))
    store.location.put(later.pack(0), b"somebody's, later")
    assert steps(store) == [10], "half a manifest was taken for a checkpoint"
    store, second = open_run(str(tmp_path))
    retain(store, second.id, keep(3, 1), orphans_only=True)
    assert store.location.names("packs") == [
        f"{CheckpointName(1, 10, first.id)}/rank-0000.pack",
        f"{later}/rank-0000.pack",
    ]
    assert [p for p in partials if p.exists()] == [], "halves of a killed writer stay"
    assert young.exists(), "the half of a later generation's manifest went"


def test_a_pack_that_a_kept_checkpoint_refers_to_stays(uri: str) -> None:
    store, claim = open_run(uri)
    first = save(store, claim.id, 1, 10)
    name = CheckpointName(2, 20, claim.id)
    store.commit(first.model_copy(update={"name": str(name), "number": 2, "step": 20}))
    retain(store, claim.id, keep(1, 0))
    assert steps(store) == [20]
    assert verify(store, name).good


def test_while_a_newer_format_is_there_nothing_is_removed(uri: str) -> None:
    store, claim = open_run(uri)
    manifests = [save(store, claim.id, n, n * 10) for n in (1, 2, 3)]
    value = json.loads(manifests[0].to_bytes())
    del value["digest"]
    store.location.put(manifests[0].checkpoint.manifest, seal(value | {"version": VERSION + 1, "news": 1}))
    reader = RunStore(Location(uri))
    retain(reader, claim.id, keep(1, 0))
    assert steps(reader) == [10, 20, 30]
    with pytest.raises(CheckpointError, match=rf"newer Aurl \(checkpoint format {VERSION + 1};") as error:
        reader.manifest(manifests[0].checkpoint)
    assert not isinstance(error.value, DamagedError)


def test_after_a_stop_at_any_operation_every_manifest_has_its_packs() -> None:
    stop_at = 0
    while True:
        FaultyFileSystem.clear()
        store, claim = open_run("faulty://run")
        for number in (1, 2, 3):
            save(store, claim.id, number, number * 10, float(number))

        def stop(number: int, kind: str, path: str, at: int = stop_at) -> None:
            if number >= at:  # a process that has died does nothing more, not even clean up
                raise Died

        FaultyFileSystem.reset(stop)
        died = False
        try:
            save(store, claim.id, 4, 40, 4.0)
            retain(store, claim.id, keep(1, 1))
        except Died:
            died = True
        FaultyFileSystem.reset()
        reader = RunStore(Location("faulty://run"))
        verdicts = [verify(reader, name) for name in reader.valid()]
        assert verdicts and all(v.good for v in verdicts), f"stopped at operation {stop_at}: {verdicts}"
        assert reader.valid()[-1].step >= 30
        if not died:
            assert steps(reader) == [10, 40]
            break
        stop_at += 1
    FaultyFileSystem.clear()
    assert stop_at >= 8, f"only {stop_at} operations were tried"


def test_verify_names_the_damaged_item(uri: str) -> None:
    store, claim = open_run(uri)
    manifest = save(store, claim.id, 1, 10)
    good = verify(store, manifest.checkpoint)
    assert good.good and good.manifest is not None
    path = manifest.packs[0].path
    data = bytearray(store.location.get(path))
    data[manifest.tensors["b.noise"].chunks[0].at + 7] ^= 4
    store.location.put(path, bytes(data))
    (problem,) = verify(store, manifest.checkpoint).problems
    assert f"{manifest.name}: b.noise in {path}: its hash does not match" == problem
    fence = store.fences()[0]
    store.location.put(fence.object, b"{}")
    assert [str(fence.id) in line for line in verify_records(store)] == [True]


def test_damaged_generation_records_change_nothing(uri: str) -> None:
    store, claim = open_run(uri)
    save(store, claim.id, 1, 10)
    for name in store.location.names("generations"):
        store.location.put(f"generations/{name}", b"\x00 not json")
    again, second = open_run(uri)
    assert (second.id.number, second.next_number, steps(again)) == (2, 2, [10])


def test_chunks_come_back_in_few_reads(uri: str) -> None:
    store, claim = open_run(uri)
    manifest = save(store, claim.id, 1, 10)
    wanted = [Wanted(k, c) for k, t in manifest.tensors.items() for c in t.chunks]
    reads = []
    get = store.location.get
    store.location.get = lambda *a: reads.append(a) or get(*a)  # type: ignore[method-assign,func-returns-value]
    found = {p.item.tensor: bytes(p.data) for p in stream(store.location, manifest, wanted)}
    assert found == {"a.zeros": bytes(400), "b.noise": random.Random(10).randbytes(400)}
    assert len(reads) == 1, "neighbouring chunks should be read together"
    assert [t.chunks[0].codec for t in manifest.tensors.values()] == ["zstd", "raw"]
