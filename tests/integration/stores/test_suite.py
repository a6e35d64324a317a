"""All that a run does with its store, the same on local disks, S3, GCS and Azure."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.errors import CheckpointError, FencedError
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.leftovers import STRAY_SECONDS, delete_strays
from aurl_trainer.store.retention.removal import all_but_best, everything
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.checkpoint.small import checkpointer, hash_of, make, state, train

pytestmark = [
    pytest.mark.processes,
    # aiohttp's, of how gcsfs and adlfs send a block; hidden outside of tests.
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),
]


def steps(uri: str) -> list[int]:
    return [name.step for name in RunStore(Location(uri)).valid()]


def test_a_run_is_probed_saved_resumed_kept_and_verified(uri: str) -> None:
    run = make(1)
    saver = checkpointer(uri, keep=KeepConfig(latest=2, best=1, grace_seconds=0))
    saver.probe()
    assert saver.open(state(*run)).restored is None
    for step, nll in ((1, 1.0), (2, 3.0), (3, 2.0), (4, 2.5)):
        train(*run, step)
        saver.save(step, state(*run), {"at": step}, {"val_nll": nll})
    assert steps(uri) == [1, 3, 4], "expected the best and the newest two"
    fresh = make(2)
    later = checkpointer(uri)
    opened = later.open(state(*fresh))
    assert opened.generation == 2 and opened.restored is not None and opened.restored.step == 4
    assert hash_of(*fresh) == hash_of(*run), "what was loaded is not what was saved"
    with pytest.raises(FencedError):
        saver.save(5, state(*run), {})
    later.save(5, state(*fresh), {"at": 5})
    store = RunStore(Location(uri))
    assert [n.generation.number for n in store.valid()][-1] == 2
    for name in store.valid():
        assert verify(store, name).good, f"expected {name} to verify"
    packs = {n.partition("/")[0] for n in store.location.names("packs")}
    assert packs == {str(n) for n in store.committed()}, "packs without a checkpoint stayed"


def test_damage_is_found_and_the_older_one_is_taken(uri: str) -> None:
    run = make(1)
    saver = checkpointer(uri)
    saver.open(state(*run))
    for step in (1, 2):
        train(*run, step)
        saver.save(step, state(*run), {"at": step})
        if step == 1:
            expected = hash_of(*run)
    store = RunStore(Location(uri))
    newest = store.valid()[-1]
    # One of its own: what did not change lies in the packs of the save before.
    victim = next(p.path for p in store.manifest(newest).packs if p.path.startswith(newest.folder))
    data = bytearray(store.location.get(victim))
    data[random.Random(5).randrange(len(data))] ^= 4
    store.location.put(victim, bytes(data))
    fresh = make(2)
    restored = checkpointer(uri).open(state(*fresh)).restored
    assert restored is not None and restored.step == 1 and hash_of(*fresh) == expected
    assert "step 2 is damaged and passed over" in restored.damaged[0].message


def test_what_killed_processes_left_goes_when_the_store_says_that_it_is_old(uri: str) -> None:
    place = Location(uri)
    whole = ["music/k/0000aaaa.json", "music/k/0000aaaa/tokens.bin"]
    strays = ["music/k/1111bbbb/tokens.bin", "probes/0123abcd"]
    for name in (*whole, *strays):
        place.put(name, b"{}")
    delete_strays(place)
    assert place.names("") == sorted([*whole, *strays]), "somebody may be at work on it"
    delete_strays(place, now=time.time() + STRAY_SECONDS + 60)
    assert place.names("") == whole


def test_a_run_that_is_over_is_thinned_out_and_removed(uri: str) -> None:
    saver = checkpointer(uri)
    run = make(1)
    saver.open(state(*run))
    for step, nll in ((1, 1.0), (2, 0.5), (3, 2.0)):
        saver.save(step, state(*run), {}, {"val_nll": nll})
    assert [n.step for n in all_but_best(Location(uri), "small", 1, KeepConfig().by)] == [2]
    assert steps(uri) == [2]
    everything(Location(uri), "small")
    place = Location(uri)
    assert [n for folder in ("manifests", "packs", "generations") for n in place.names(folder)] == []


def test_a_stream_of_several_blocks_arrives_and_is_read_by_many_threads(uri: str) -> None:
    data = random.Random(7).randbytes(33 * 2**20)
    place = Location(uri)
    with place.writing("packs/large") as file:
        for at in range(0, len(data), 5_000_001):
            file.write(memoryview(data)[at : at + 5_000_001])
    assert place.size("packs/large") == len(data)
    ranges = [(at, min(at + 3 * 2**20, len(data))) for at in range(0, len(data), 3 * 2**20)]
    with ThreadPoolExecutor(8) as threads:
        parts = list(threads.map(lambda r: place.get("packs/large", *r), ranges))
    assert b"".join(parts) == data
    with pytest.raises(CheckpointError, match="given up"), place.writing("packs/other") as file:
        file.write(data)
        raise OSError(5, "given up")
    assert place.names("packs") == ["large"], "a stream that failed left something behind"
    with pytest.raises(CheckpointError, match="given up"), place.writing("packs/large") as file:
        file.write(bytes(len(data)))
        raise OSError(5, "given up")
    assert place.get("packs/large") == data, "a stream that failed took what was there before"


def test_many_threads_write_list_and_delete_at_once(uri: str) -> None:
    place = Location(uri)

    def work(number: int) -> bytes:
        with place.writing(f"packs/{number}/p") as file:
            file.write(bytes([number]) * 1000)
        place.put(f"manifests/{number}", b"x")
        assert str(number) in place.names("manifests")
        place.delete([f"manifests/{number}"])
        return place.get(f"packs/{number}/p")

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(work, range(16)))
    assert found == [bytes([n]) * 1000 for n in range(16)]
    assert place.names("manifests") == [] and len(place.names("packs")) == 16
