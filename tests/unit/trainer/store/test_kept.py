"""Copies of packs on a node's disk: whole or not at all, never too many, never in the way of a save."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aurl_trainer.errors import CheckpointError
from aurl_trainer.store import kept as room
from aurl_trainer.store.kept import KeepingLocation, KeptPacks
from aurl_trainer.store.location.place import Location
from tests.unit.trainer.store import far

assert far.PROTOCOL == "far"


def name(number: int) -> str:
    return f"packs/v{number}/rank-0000.pack"


def keep(kept: KeptPacks, number: int, data: bytes) -> None:
    with kept.keeping(name(number)) as copy:
        copy.write(data)


def test_a_pack_that_is_written_through_is_kept_with_the_same_bytes(tmp_path: Path) -> None:
    kept = KeptPacks(tmp_path / "kept", 2**20)
    place = KeepingLocation(f"far://{tmp_path}/run", kept)
    with place.writing(name(1)) as file:
        file.write(b"abc")
        assert kept.sizes() == {}, "not before it is whole"
        file.write(memoryview(b"defg"))
    place.put("manifests/v1.json", b"{}")
    assert kept.sizes() == {name(1): 7}
    assert (kept.read(name(1), 0, 7), kept.read(name(1), 2, 4)) == (place.get(name(1)), b"cd")
    assert kept.read(name(1), 5, 9) is None, "less than was asked for is nothing"
    assert kept.read(name(2), 0, 1) is None


def test_a_write_that_fails_leaves_no_copy(tmp_path: Path) -> None:
    kept = KeptPacks(tmp_path / "kept", 2**20)
    place = KeepingLocation(f"far://{tmp_path}/run", kept)
    with pytest.raises(CheckpointError), place.writing(name(1)) as file:
        file.write(b"abc")
        raise RuntimeError
    assert kept.sizes() == {}
    assert not [p for p in (tmp_path / "kept").rglob("*") if p.is_file()]


def test_the_oldest_copies_make_room_and_too_large_ones_are_given_up(tmp_path: Path) -> None:
    kept = KeptPacks(tmp_path, 100)
    for number in range(4):
        keep(kept, number, bytes(40))
        os.utime(tmp_path / name(number), (number, number))
    assert sorted(kept.sizes()) == [name(2), name(3)]
    keep(kept, 9, bytes(101))
    assert sorted(kept.sizes()) == [name(2), name(3)]


@pytest.mark.parametrize("trouble", ["no folder", "a full disk"])
def test_a_disk_that_takes_no_copy_costs_no_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    if trouble == "no folder":
        (tmp_path / "kept").write_text("a file stands where the folder should be")
    else:
        monkeypatch.setattr(room, "_free", lambda folder: 3)
    kept = KeptPacks(tmp_path / "kept", 2**20)
    with KeepingLocation(f"far://{tmp_path}/run", kept).writing(name(1)) as file:
        file.write(b"abc")
    assert Location(f"far://{tmp_path}/run").get(name(1)) == b"abc"
    assert kept.sizes() == {}
