"""A store that is no local disk, slow to answer, shared by processes: files behind another protocol."""

from __future__ import annotations

import time
from typing import Any

import fsspec
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

PROTOCOL = "far"
SECONDS = 0.05
"""What each read of a pack takes."""


class FarFileSystem(DirFileSystem):
    """`far:///a/path` is `/a/path`. Its reads of packs are slow, and written down in `reads`."""

    protocol = PROTOCOL
    cachable = False
    reads: list[str] = []  # noqa: RUF012 - one list for all instances

    def __init__(self, **options: Any) -> None:
        super().__init__(path="/", fs=LocalFileSystem(auto_mkdir=True), **options)
        self.path = ""

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return str(path).removeprefix("far://").rstrip("/")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> Any:
        if "/packs/" in path:
            time.sleep(SECONDS)
            FarFileSystem.reads.append(path)
        return super().cat_file(path, start=start, end=end, **kwargs)


fsspec.register_implementation(PROTOCOL, FarFileSystem, clobber=True)
