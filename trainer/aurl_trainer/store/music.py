"""Prepared music beside the checkpoints: the first node of a run that has it leaves it for those that come.

A pod starts with an empty disk, and reading all the music again can take longer than all else that it has to
do. What lies here is never needed: what cannot be had is made anew. Files are hashed on the way in and on the
way out. Not here: how music is prepared, and what its files are (the room `data/`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.location.stream import BLOCK_BYTES

log = logging.getLogger(__name__)

MUSIC = "music"
"""Folder below a run's URL, with a folder for each key."""


class SharedMusic:
    """Prepared music at a run's place, by its key; each copy of it is a folder, and counts by its listing."""

    def __init__(self, location: Location) -> None:
        self._location = location

    def fetch(self, key: str, folder: Path, alive: Callable[[], None] = lambda: None) -> bool:
        """Make `folder` of what is there, whole or not at all. Returns whether it did.

        `alive` is called for each block that moves.
        """
        # Named as a build's own, which removes what one that was killed has left.
        part = folder.with_name(f".building-{folder.name}-{os.getpid()}")
        try:
            for listing in self._listings(key):
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                if self._take(key, listing, part, alive):
                    shutil.rmtree(folder, ignore_errors=True)  # incomplete, or nobody would have asked
                    part.rename(folder)
                    return True
        except (CheckpointError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("prepared music cannot be fetched, and is made anew: %s", error)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return False

    def publish(self, key: str, folder: Path, alive: Callable[[], None] = lambda: None) -> None:
        """Leave a copy of `folder` for others, unless there is one. `alive` is called as in `fetch`."""
        copy = secrets.token_hex(4)
        try:
            if self._listings(key):
                return
            files = {}
            for path in sorted(folder.iterdir()):
                with (
                    path.open("rb") as source,
                    self._location.writing(self._name(key, copy, path.name)) as out,
                ):
                    files[path.name] = _copied(source, out, alive)
            # Last: what no listing names is not read.
            self._location.put(self._name(key, f"{copy}.json"), json.dumps(files).encode())
        except (CheckpointError, OSError) as error:
            log.warning("prepared music cannot be left for other nodes: %s", error)

    def _listings(self, key: str) -> list[str]:
        names = self._location.names(f"{MUSIC}/{key}")
        return [name for name in names if name.endswith(".json") and "/" not in name]

    def _name(self, key: str, *rest: str) -> str:
        return "/".join((MUSIC, key, *rest))

    def _take(self, key: str, listing: str, part: Path, alive: Callable[[], None]) -> bool:
        """Whether every file of this copy is what its listing says."""
        wanted = json.loads(self._location.get(self._name(key, listing)))
        for name, (size, digest) in wanted.items():
            if Path(name).name != name:
                raise ValueError(f"{name} is no name of a file")
            with (part / name).open("wb") as out:
                found = hashlib.sha256()
                for start in range(0, size, BLOCK_BYTES):
                    object_name = self._name(key, listing.removesuffix(".json"), name)
                    data = self._location.get(object_name, start, min(start + BLOCK_BYTES, size))
                    found.update(data)
                    out.write(data)
                    alive()
            if (part / name).stat().st_size != size or found.hexdigest() != digest:
                log.warning("%s/%s is damaged, and not used", self._location.uri, self._name(key, listing))
                return False
        return True


def unlisted(location: Location) -> dict[str, list[str]]:
    """Copies without a listing, with their objects: a node leaves them now, or was killed while it did."""
    names = set(location.names(MUSIC))
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        copy, _, file = name.rpartition("/")
        if "/" in copy and f"{copy}.json" not in names:
            found.setdefault(f"{MUSIC}/{copy}", []).append(f"{MUSIC}/{copy}/{file}")
    return found


def _copied(source: BinaryIO, out: BinaryIO, alive: Callable[[], None]) -> tuple[int, str]:
    """Copies, and returns bytes and SHA-256."""
    digest, size = hashlib.sha256(), 0
    while data := source.read(BLOCK_BYTES):
        digest.update(data)
        out.write(data)
        size += len(data)
        alive()
    return size, digest.hexdigest()
