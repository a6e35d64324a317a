"""Partial files of killed writers: swept when they are surely theirs, seen by no reader before."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.leftovers import FOLDERS, PARTIAL_SECONDS, STRAY_SECONDS
from aurl_trainer.store.retention.passes import collect, retain
from aurl_trainer.store.retention.removal import everything
from tests.unit.trainer.store.made import RUN, open_run, save

KEEP = KeepConfig()


def half(place: Path, folder: str, token: str, seconds: float) -> Path:
    """What a writer of `folder`/x.json left that was killed so many seconds ago."""
    path = place / folder / f".x.json.{token}.partial"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"half")
    age(path, seconds)
    return path


def age(path: Path, seconds: float) -> None:
    """It was last written to so long ago."""
    os.utime(path, (time.time() - seconds, time.time() - seconds))


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


@pytest.mark.parametrize("who", ["a world that opens the run", "gc"])
def test_old_probes_and_copies_of_music_that_nobody_lists_go(tmp_path: Path, who: str) -> None:
    store, claim = open_run(str(tmp_path))
    save(store, claim.id, 1, 1)
    place = store.location
    listed = ["music/k/0000aaaa/tokens.bin", "music/k/0000aaaa.json"]
    alive = ["music/k/1111bbbb/pieces.json", "music/k/1111bbbb/tokens.bin", "probes/1111bbbb"]
    strays = [
        "music/k/2222cccc/pieces.json",
        "music/k/2222cccc/tokens.bin",
        "music/l/3333dddd/x",
        "probes/2222",
    ]
    for name in (*listed, *alive, *strays):
        place.put(name, b"{}")
    for name in (*listed, *strays, alive[0]):  # one file of a copy that is being written may be old
        age(tmp_path / name, STRAY_SECONDS + 60)
    for name in alive[1:]:
        age(tmp_path / name, STRAY_SECONDS - 60)
    if who == "gc":
        collect(store, KEEP, dry_run=True)
        assert set(strays) <= set(place.names("")), "a dry run removed something"
        collect(store, KEEP)
    else:
        retain(store, claim.id, KEEP)
        assert set(strays) <= set(place.names("")), "each save looks for them"
        retain(store, claim.id, KEEP, orphans_only=True)
    left = [name for name in place.names("") if name.startswith(("music", "probes"))]
    assert left == sorted([*listed, *alive]), (
        "a listed copy went, or one that may be written now, or too little"
    )


def test_a_run_that_is_removed_leaves_no_half(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path))
    save(store, claim.id, 1, 1)
    halves = [half(tmp_path, folder, "0123abcd", 0.0) for folder in FOLDERS]
    everything(Location(str(tmp_path)), RUN)
    assert [p for p in halves if p.exists()] == []
