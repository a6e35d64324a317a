"""Copies of packs on a node's own disk: what its ranks wrote last, for itself and its peers after a regroup.

A rank ends whenever the world changes; the disk of its node stays as long as the node does. Copies are never
trusted: whoever reads one checks its hashes, as with the store's own. A copy that cannot be made is left out,
and half a one, as a rank leaves that ends while it saves, goes when the next is made.
Not here: who reads them (checkpoint/peers/).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from aurl_trainer.store.format.names import PACKS
from aurl_trainer.store.location.disk import PARTIAL
from aurl_trainer.store.location.place import Location

log = logging.getLogger(__name__)

FREE = 2
"""So many times a pack's bytes must be free on the disk after it, or it is given up."""


class KeptPacks:
    """Packs below `folder`, the newest of them, `most_bytes` in all. All ranks of a node may share it."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most = most_bytes

    def sizes(self) -> dict[str, int]:
        """Bytes of each whole pack, by its name at the run's place."""
        return {name: size for name, (size, _) in self._found().items()}

    def read(self, name: str, start: int, end: int) -> bytes | None:
        """The bytes in [start, end) of a pack; None if they are not there."""
        try:
            with (self._folder / name).open("rb") as file:
                file.seek(start)
                data = file.read(end - start)
        except OSError:
            return None
        return data if len(data) == end - start else None

    def open(self, name: str) -> BinaryIO:
        """The pack for reading. Raises OSError."""
        return (self._folder / name).open("rb")

    @contextlib.contextmanager
    def keeping(self, name: str) -> Iterator[Copy]:
        """A copy to be written beside the pack `name`; it counts when the block has ended well."""
        self._sweep()
        path = self._folder / name
        partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
        copy = Copy(partial, self._most)
        try:
            yield copy
            copy.finish(path)
            self._trim(name)
        finally:
            copy.give_up()

    def _found(self) -> dict[str, tuple[int, float]]:
        found = {}
        with contextlib.suppress(OSError):
            for path in (self._folder / PACKS).glob("*/*.pack"):
                with contextlib.suppress(OSError):
                    status = path.stat()
                    found[str(path.relative_to(self._folder))] = (status.st_size, status.st_mtime)
        return found

    def _sweep(self) -> None:
        """Removes halves that ranks left which are gone: whoever writes one has it locked."""
        with contextlib.suppress(OSError):  # another rank removes the same, or the disk fails
            for path in (self._folder / PACKS).glob(f"*/.*{PARTIAL}"):
                with contextlib.suppress(OSError), path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    path.parent.rmdir()

    def _trim(self, newest: str) -> None:
        """Removes the oldest until the rest is small enough."""
        found = self._found()
        total = sum(size for size, _ in found.values())
        for name, (size, _) in sorted(found.items(), key=lambda f: (f[0] == newest, f[1][1], f[0])):
            if total <= self._most:
                return
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()
                (self._folder / name).parent.rmdir()
            total -= size


class Copy:
    """One copy under way. It gives itself up when the disk refuses or it grows too large."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path = path
        self._most = most_bytes
        self._bytes = 0
        self._file: BinaryIO | None = None
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
            # It ends with the process. Should a sweep come in between, there is no copy.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Never raises."""
        if self._file is None:
            return
        size = memoryview(data).nbytes
        self._bytes += size
        try:
            if self._bytes > self._most or _free(self._path.parent) < FREE * size:
                raise OSError(0, "it is larger than there is room for copies")
            self._file.write(data)
        except OSError as error:
            log.info("no copy of %s is kept on this node: %s", self._path.parent.name, error.strerror)
            self.give_up()

    def finish(self, path: Path) -> None:
        """From now on it counts."""
        if self._file is None:
            return
        try:
            self._file.close()
            self._path.replace(path)
            self._file = None
        except OSError:
            self.give_up()

    def give_up(self) -> None:
        """Removes what there is, unless it is finished."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._file = None


class KeepingLocation(Location):
    """A place of which each pack that is written through it is kept on this node, too."""

    def __init__(self, uri: str, kept: KeptPacks) -> None:
        super().__init__(uri)
        self._kept = kept

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """See Location."""
        if not name.startswith(f"{PACKS}/"):
            with super().writing(name) as file:
                yield file
            return
        with self._kept.keeping(name) as copy, super().writing(name) as file:
            yield cast(BinaryIO, _Both(file, copy))


class _Both:
    """Writes to the store, then to the copy."""

    def __init__(self, file: BinaryIO, copy: Copy) -> None:
        self._file = file
        self._copy = copy

    def write(self, data: bytes | bytearray | memoryview) -> int:
        written = self._file.write(data)
        self._copy.write(data)
        return written


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
