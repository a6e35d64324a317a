"""The catalogue over real stores: saves keep the index fresh, and a listing shows what is there."""

from __future__ import annotations

import pytest

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.store.catalog.found import Found, find
from aurl_trainer.store.catalog.index import OBJECT, read_index
from aurl_trainer.store.catalog.scan import Run
from aurl_trainer.store.catalog.where import Where
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.passes import collect
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.checkpoint.small import checkpointer, make, state, train

pytestmark = [
    pytest.mark.processes,
    # aiohttp's, of how gcsfs and adlfs send a block; hidden outside of tests.
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),
]


def listed(uri: str) -> Found:
    return find(Run("bach", Location(uri)))


def test_saves_retention_and_gc_keep_the_index_fresh(uri: str) -> None:
    run = make(1)
    saver = checkpointer(uri, keep=KeepConfig(latest=2, best=0, grace_seconds=0))
    saver.open(state(*run))
    assert listed(uri).entries == ()
    for step in (1, 2, 3):
        train(*run, step)
        saver.save(step, state(*run), {}, {"val_nll": 1.0 / step, "scale_consistency": step / 4})
        found = listed(uri)
        assert [e.step for e in found.entries] == list(range(max(1, step - 1), step + 1))
        assert found.read == 0, f"after the save of step {step} the index lacks a checkpoint"
    assert [e.step for e in Where.parse("scale_consistency > 0.7").select(list(found.entries))] == [3]
    saver.close()
    collect(RunStore(Location(uri)), KeepConfig(latest=1, best=0, grace_seconds=0))
    assert [e.step for e in read_index(Location(uri)).values()] == [3]


def test_an_old_index_neither_hides_nor_invents(uri: str) -> None:
    run = make(1)
    saver = checkpointer(uri, keep=KeepConfig(latest=9, grace_seconds=0))
    saver.open(state(*run))
    place = Location(uri)
    old = b""
    for step in (1, 2, 3):
        train(*run, step)
        saver.save(step, state(*run), {}, {"val_nll": 1.0})
        old = old or place.get(OBJECT)  # tells of step 1 only
    saver.close()
    place.put(OBJECT, old)
    place.delete([RunStore(place).valid()[0].manifest])
    found = listed(uri)
    assert ([e.step for e in found.entries], found.read) == ([2, 3], 2)
    place.put(OBJECT, old[:-7])
    assert [e.step for e in listed(uri).entries] == [2, 3], "a damaged index was believed"
