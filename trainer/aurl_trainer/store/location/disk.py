"""Files on local disks: durable writes (fsync of file and folder), and reading without fsspec.

fsspec takes longer to load than `aurl checkpoints list` has for all that it does.
Not here: which files (place.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

PARTIAL = ".partial"
"""How the name of a file ends that is not whole yet; it begins with a dot. `names` does not see it."""

BEHIND_BYTES = 32 * 2**20
"""Brought to the disk as soon as so many are written: else it would be idle until the last one, and the fsync
at the end would wait for all of them."""

PROTOCOLS = ("file", "local")

_PARTIAL_NAME = re.compile(rf"\.(.+?)(?:\.[0-9a-f]{{8}})?{re.escape(PARTIAL)}")
"""Older writers had no part of their own in it."""

_data_sync = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter


class Disk:
    """As much of a file system, as fsspec means it, as reading and removing need. Raises OSErrors."""

    async_impl = False

    def ls(self, path: str, detail: bool = True) -> list[dict[str, Any]]:
        """`name` and `type` (directory or file) of what is directly in a folder; of a file: nothing."""
        try:
            with os.scandir(path) as entries:
                return [{"name": e.path, "type": "directory" if e.is_dir() else "file"} for e in entries]
        except NotADirectoryError:
            return []

    def info(self, path: str) -> dict[str, Any]:
        """`size` in bytes, `mtime` in seconds since the epoch."""
        found = Path(path).stat()
        return {"size": found.st_size, "mtime": found.st_mtime}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """The file's bytes in [start, end)."""
        with Path(path).open("rb") as file:
            file.seek(start or 0)
            return file.read(-1 if end is None else max(end - (start or 0), 0))

    def rm_file(self, path: str) -> None:
        """Removes a file."""
        Path(path).unlink()


def local_path(uri: str) -> str | None:
    """The absolute path that a URL or a plain path means on this machine; None if it is another store's."""
    protocol, separator, rest = uri.partition("://")
    if not separator:
        protocol, separator, rest = uri.partition(":")  # as in file:/runs/bach, which fsspec reads, too
        if protocol not in PROTOCOLS:
            rest = uri
    elif protocol not in PROTOCOLS:
        return None
    return str(Path(rest).expanduser().absolute())


def whole_name(partial: str) -> str | None:
    """The name of the file that a partial one was to become; None if `partial` is no such name."""
    match = _PARTIAL_NAME.fullmatch(partial)
    return match[1] if match else None


def quiet_seconds(path: Path) -> float:
    """How long ago a file was last written to, by its own and this machine's clock; 0: it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def put(path: Path, data: bytes) -> None:
    """Writes a file, whole or not at all: a temporary file, fsync, rename, fsync of the folder.

    Of several that write the same name at once, on one machine or on many, the last has it.
    """
    make_folder(path.parent)
    partial = _partial(path)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into; there, whole and durable, when the block ends, and not when it fails.

    One that was there before stays as it was until the block has ended well: others may be using it. Of
    several that write the same name at once the last has it, and one that fails takes nothing of the others'.
    """
    make_folder(path.parent)
    partial = _partial(path)
    try:
        with partial.open("wb") as file:
            behind = _Behind(file)
            try:
                yield cast(BinaryIO, behind)
            finally:
                behind.end()
            behind.check()
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")


class _Behind:
    """A file whose bytes a thread brings to the disk while more are being written.

    The system tells of a failed write-back once, so what the thread was told is kept and raised.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._fresh = 0
        self._failed: OSError | None = None
        self._thread: threading.Thread | None = None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.check()
        written = self._file.write(data)
        self._fresh += written
        if self._fresh >= BEHIND_BYTES and not (self._thread and self._thread.is_alive()):
            self._file.flush()
            self._fresh = 0
            self._thread = threading.Thread(target=self._sync, name="write-back", daemon=True)
            self._thread.start()
        return written

    def _sync(self) -> None:
        try:
            _data_sync(self._file.fileno())
        except OSError as error:
            self._failed = error

    def check(self) -> None:
        """Raises the OSError of a write-back that failed."""
        if self._failed is not None:
            raise self._failed

    def end(self) -> None:
        """The file may be closed on return."""
        if self._thread is not None:
            self._thread.join()


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, durably."""
    missing = []
    at = folder
    while not at.exists():
        missing.append(at)
        at = at.parent
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Makes names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
