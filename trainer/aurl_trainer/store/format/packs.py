"""Bytes of chunks into packs.

A pack is the chunks' stored bytes one after the other. A chunk is compressed with zstd where its writer finds
that worth it (compression.py). Chunks with the same content are stored once. Not here: tensors, and reading
(reading.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

import zstandard

PIECE_BYTES = 8 * 2**20
"""Large contents are compressed and written so many bytes at a time."""


@dataclass(frozen=True)
class Stored:
    """Where the bytes of one chunk went; the fields are Chunk's."""

    at: int
    bytes: int
    codec: Literal["raw", "zstd"]
    hash: str
    stored: str | None


class PackWriter:
    """Appends chunks to an open file. `level` is zstd's; 0: nothing is compressed.

    `alive` is called between pieces of PIECE_BYTES, and may raise to stop the writing.
    """

    def __init__(self, file: BinaryIO, level: int, alive: Callable[[], None] = lambda: None) -> None:
        self._file = file
        self._level = level
        self._alive = alive
        self._seen: dict[str, Stored] = {}
        self.bytes = 0

    def add(self, content: memoryview, digest: str | None = None, compress: bool = True) -> Stored:
        """Stores one chunk. `content` is its bytes, contiguous; `digest` its SHA-256 where that is known.

        Beside the content no more than a few pieces are held.
        """
        content = content.cast("B") if content.nbytes else content
        digest = digest or hashlib.sha256(content).hexdigest()
        if digest in self._seen:
            return self._seen[digest]
        if compress and self._level and content.nbytes:
            placed = self._compressed(content, digest)
        else:
            placed = self._raw(content, digest)
        self.bytes += placed.bytes
        self._seen[digest] = placed
        return placed

    def _raw(self, content: memoryview, digest: str) -> Stored:
        for piece in _pieces(content):
            self._alive()
            self._file.write(piece)
        return Stored(self.bytes, content.nbytes, "raw", digest, None)

    def _compressed(self, content: memoryview, digest: str) -> Stored:
        if content.nbytes <= PIECE_BYTES:
            small = zstandard.ZstdCompressor(level=self._level).compress(content)
            if len(small) >= content.nbytes:
                return self._raw(content, digest)
            self._file.write(small)
            return Stored(self.bytes, len(small), "zstd", digest, hashlib.sha256(small).hexdigest())
        stream = zstandard.ZstdCompressor(level=self._level).compressobj(size=content.nbytes)
        stored, count = hashlib.sha256(), 0
        for piece in _pieces(content):
            self._alive()
            small = stream.compress(piece)
            count += self._append(small, stored)
        count += self._append(stream.flush(), stored)
        return Stored(self.bytes, count, "zstd", digest, stored.hexdigest())

    def _append(self, data: bytes, digest: hashlib._Hash) -> int:
        digest.update(data)
        if data:
            self._file.write(data)
        return len(data)


def _pieces(content: memoryview) -> Iterator[memoryview]:
    """The content cut for writing; an empty one is one empty piece."""
    for start in range(0, max(content.nbytes, 1), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]
