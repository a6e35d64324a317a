"""Copies of packs on a node's disk: whole or not at all, never too many, never in the way of a save."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import BinaryIO

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


def test_what_a_rank_left_that_ended_while_it_saved_goes_with_the_next_copy(tmp_path: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from aurl_trainer.store.kept import KeptPacks
        with KeptPacks(Path(sys.argv[1]), 2**20).keeping("packs/v1/rank-0000.pack") as copy:
            copy.write(bytes(100))
            os._exit(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], check=True)
    assert len(files(tmp_path)) == 1, "the rank that ended left nothing to remove"
    kept = KeptPacks(tmp_path, 2**20)
    with kept.keeping(name(2)) as copy:
        copy.write(b"abc")
        keep(KeptPacks(tmp_path, 2**20), 3, b"defg")
        copy.write(b"defg")
    assert kept.sizes() == {name(2): 7, name(3): 4}, "what is being written beside it has to stay"
    assert files(tmp_path) == {name(2), name(3)}, "what the rank left takes room for ever"


def test_another_rank_that_removes_the_same_halves_costs_no_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        half = tmp_path / f"packs/v{number}/.rank-0000.pack.1.partial"
        half.parent.mkdir(parents=True)
        half.write_bytes(b"half")
    kept = KeptPacks(tmp_path, 2**20)
    lock = fcntl.flock

    def meanwhile(file: BinaryIO, how: int) -> None:
        shutil.rmtree(tmp_path / "packs")  # another rank, between the listing and the look into the others
        monkeypatch.undo()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    keep(kept, 4, b"abc")
    assert not (tmp_path / "packs/v0").exists(), "the other rank never came"
    assert kept.sizes() == {name(4): 3}


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


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
