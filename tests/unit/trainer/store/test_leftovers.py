"""Partial files of killed writers: swept when they are surely theirs, seen by no reader before."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.leftovers import FOLDERS, PARTIAL_SECONDS
from aurl_trainer.store.retention.passes import collect, retain
from aurl_trainer.store.retention.removal import everything
from tests.unit.trainer.store.made import open_run, save

KEEP = KeepConfig()


def half(place: Path, folder: str, token: str, age: float) -> Path:
    """What a writer of `folder`/x.json left that was killed `age` seconds ago."""
    path = place / folder / f".x.json.{token}.partial"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.mark.parametrize("who", ["a world that opens the run", "gc"])
def test_an_old_half_of_anything_goes_and_one_that_may_be_written_now_stays(tmp_path: Path, who: str) -> None:
    store, claim = open_run(str(tmp_path))
    save(store, claim.id, 1, 1)
    old = [half(tmp_path, folder, "0123abcd", PARTIAL_SECONDS + 60) for folder in FOLDERS]
    young = [half(tmp_path, folder, "4567cdef", PARTIAL_SECONDS - 60) for folder in FOLDERS]
    foreign = half(tmp_path, "elsewhere", "0123abcd", PARTIAL_SECONDS + 60)
    assert not [n for n in store.location.names("") if "x.json" in n], "a reader sees what is not whole"
    if who == "gc":
        collect(store, KEEP, dry_run=True)
        assert all(path.exists() for path in old), "a dry run removed something"
        collect(store, KEEP)
    else:
        retain(store, claim.id, KEEP, orphans_only=True)
    assert [p for p in old if p.exists()] == []
    assert [p for p in young if not p.exists()] == [], "a writer may be at work on it"
    assert foreign.exists(), "it is in no folder of a run's"


def test_a_run_that_is_removed_leaves_no_half(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path))
    save(store, claim.id, 1, 1)
    halves = [half(tmp_path, folder, "0123abcd", 0.0) for folder in FOLDERS]
    everything(Location(str(tmp_path)))
    assert [p for p in halves if p.exists()] == []
