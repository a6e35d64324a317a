"""The index: it saves reading, whoever changes a run renews it, and it is never trusted over a listing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.store.aside import set_aside
from aurl_trainer.store.catalog.found import find
from aurl_trainer.store.catalog.index import OBJECT, read_index, renew_index, write_index
from aurl_trainer.store.catalog.scan import Run
from aurl_trainer.store.copying import copy
from aurl_trainer.store.format.sealed import seal
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.passes import collect, retain
from aurl_trainer.store.retention.removal import all_but_best
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.tags import set_tag
from tests.unit.trainer.store.faulty import FaultyFileSystem
from tests.unit.trainer.store.made import RUN, open_run, save

EXPERIMENT: dict[str, Any] = {"from_preset": "quick_test", "seed": 1, "model": {"dim": 64, "mode": "vae"}}
LATEST_TWO = KeepConfig(latest=2, best=0, grace_seconds=0)


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "file" else f"memory:/{tmp_path}/store"


def indexed(location: Location) -> list[int]:
    return [e.step for e in read_index(location).values()]


def test_it_saves_reading_and_a_listing_is_never_older_than_the_store(url: str) -> None:
    store, claim = open_run(f"{url}/bach")
    extra = {"experiment": EXPERIMENT}
    manifests = [save(store, claim.id, n, 10 * n, float(n), extra=extra) for n in (1, 2, 3)]
    run = Run("bach", store.location)
    first = find(run)
    assert (first.read, [e.preset for e in first.entries]) == (3, ["quick_test"] * 3)
    renew_index(store)
    assert (find(run).entries, find(run).read) == (first.entries, 0), "the index tells something else"
    # Older than the store: one more checkpoint, one less, a tag, one set aside.
    store.location.delete([manifests[0].checkpoint.manifest])
    for number in (4, 5):
        save(store, claim.id, number, 10 * number, 4.0, extra=extra)
    set_tag(store, "paper", manifests[1].checkpoint)
    set_aside(store.location, manifests[2].checkpoint, ["a test"])
    found = find(run)
    assert found.read == 2
    assert [(e.step, e.tags) for e in found.entries] == [(20, ("paper",)), (40, ()), (50, ())]
    assert indexed(store.location) == [10, 20, 30], "a listing has written"


def test_one_that_cannot_be_used_is_as_none(url: str) -> None:
    store, claim = open_run(url)
    save(store, claim.id, 1, 10, 2.0)
    renew_index(store)
    written = store.location.get(OBJECT)
    for bad in (
        b"", written[:-9], written.replace(b"2.0", b"1.0"), seal({"format": "aurl-index", "version": 2}),
        seal({"format": "aurl-index", "version": 1, "configs": [], "checkpoints": [{"config": 0}]}),
        seal({"format": "aurl-index", "version": 1, "configs": 3, "checkpoints": 4}),
    ):  # fmt: skip
        store.location.put(OBJECT, bad)
        assert read_index(store.location) == {}
        assert [e.metrics["val_nll"] for e in find(Run("bach", store.location)).entries] == [2.0]
    renew_index(store)
    assert indexed(store.location) == [10], "a damaged index was not written anew"


def test_whoever_changes_a_run_renews_it(url: str) -> None:
    store, claim = open_run(f"{url}/bach")
    for number in (1, 2, 3):
        save(store, claim.id, number, number, float(number), at=1000.0 * number)
        retain(store, claim.id, LATEST_TWO)
        assert indexed(store.location) == [n.step for n in store.committed()], "after a save and retention"
    collect(RunStore(Location(f"{url}/bach")), LATEST_TWO.model_copy(update={"latest": 1}), dry_run=True)
    assert indexed(store.location) == [2, 3], "a dry run has changed the index"
    target = RunStore(Location(f"{url}/copy"))
    copy(store, store.valid()[0], target, lambda done: None, any_run=False)
    assert indexed(target.location) == [2]
    save(store, claim.id, 4, 4, 4.0)
    all_but_best(store.location, RUN, 1, {"val_nll": 1.0})
    assert indexed(store.location) == [2], "the best is left"
    save(store, claim.id, 5, 5, 5.0, at=1000.0)
    save(store, claim.id, 6, 6, 6.0, at=1000.0)
    collect(store, LATEST_TWO)
    assert indexed(store.location) == [5, 6]


def test_a_late_writer_hides_nothing(url: str) -> None:
    """Two write at once: what the slower one knew is older, and is what is left."""
    store, claim = open_run(url)
    save(store, claim.id, 1, 1, 1.0)
    known = renew_index(store).entries
    save(store, claim.id, 2, 2, 2.0)
    renew_index(store)
    write_index(store.location, known)
    found = find(Run("bach", store.location))
    assert ([e.step for e in found.entries], found.read) == ([1, 2], 1)


def test_a_store_that_refuses_it_harms_nobody() -> None:
    FaultyFileSystem.clear()
    store, claim = open_run("faulty://run")
    for number in (1, 2, 3):
        save(store, claim.id, number, number, float(number), at=1000.0)

    def refuses(number: int, kind: str, path: str) -> None:
        if "/index/" in path:
            raise PermissionError("not allowed")

    FaultyFileSystem.reset(refuses)
    retain(store, claim.id, LATEST_TWO)
    assert [n.step for n in store.committed()] == [2, 3], "retention did not do its work"
    assert [e.step for e in find(Run("run", store.location)).entries] == [2, 3]
    assert read_index(store.location) == {}
    FaultyFileSystem.clear()
