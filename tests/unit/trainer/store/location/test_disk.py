"""Large files on a local disk: brought there while they are written, whole or gone."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.location import disk
from aurl_trainer.store.location.place import Location

WAIT = 30.0


def test_two_that_write_one_name_at_once_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second writes all of its own between the first one's last byte and its rename."""
    path, fsync = tmp_path / "index" / "checkpoints.json", os.fsync
    between: list[bytes] = []
    path.parent.mkdir()

    def second(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        disk.put(path, b"the second's")
        between.append(path.read_bytes())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", second)
    disk.put(path, b"the first one's, which is longer")
    assert between == [b"the second's"], "there were no two at once"
    assert path.read_bytes() == b"the first one's, which is longer", "the last to rename has the name"
    assert [p.name for p in path.parent.iterdir()] == [path.name], "a half was left"


@pytest.mark.parametrize(
    ("partial", "whole"),
    [
        (".checkpoints.json.0123abcd.partial", "checkpoints.json"),
        (".checkpoints.json.partial", "checkpoints.json"),
        (".g000001-5f3a9c01.from-start.json.0123abcd.partial", "g000001-5f3a9c01.from-start.json"),
        (".hidden", None),
        ("checkpoints.json.0123abcd.partial", None),
    ],
)
def test_a_partial_file_is_known_by_its_name(partial: str, whole: str | None) -> None:
    assert disk.whole_name(partial) == whole


def test_what_is_written_goes_to_the_disk_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "BEHIND_BYTES", 1000)
    synced = threading.Event()

    def sync(descriptor: int) -> None:
        os.fsync(descriptor)
        synced.set()

    monkeypatch.setattr(disk, "_data_sync", sync)
    with disk.writing(tmp_path / "packs" / "x.pack") as file:
        for number in range(10):
            file.write(bytes([number]) * 300)
        assert synced.wait(WAIT), "nothing was brought to the disk before the end"
        file.write(b"end")
    expected = b"".join(bytes([number]) * 300 for number in range(10)) + b"end"
    assert (tmp_path / "packs" / "x.pack").read_bytes() == expected


def test_a_failed_write_back_fails_the_file_even_if_the_last_sync_would_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells of it once: the fsync at the end may say that all is well."""
    monkeypatch.setattr(disk, "BEHIND_BYTES", 1000)
    failed = threading.Event()

    def broken(descriptor: int) -> None:
        failed.set()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(disk, "_data_sync", broken)
    place = Location(str(tmp_path))
    refused = pytest.raises(CheckpointError, match=r"x\.pack: cannot be written: Input/output error")
    with refused, place.writing("x.pack") as file:
        file.write(bytes(2000))
        assert failed.wait(WAIT)
    assert not (tmp_path / "x.pack").exists()
