"""Bytes of chunks into packs, and out again with every hash checked.

A pack is the chunks' stored bytes one after the other. A chunk is compressed with zstd where its writer finds
that worth it (compression.py). Chunks with the same content are stored once. Not here: tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal

import zstandard

from aurl_trainer.errors import DamagedError
from aurl_trainer.store.format.manifest import Chunk, Manifest
from aurl_trainer.store.location import Location

READ_BYTES = 32 * 2**20
"""Neighbouring chunks are read together up to so many bytes: a request costs more than its bytes."""
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


@dataclass(frozen=True)
class Wanted:
    """A chunk to read, and the name of its tensor for messages."""

    tensor: str
    chunk: Chunk


def read_chunks(
    location: Location, manifest: Manifest, wanted: Sequence[Wanted]
) -> Iterator[tuple[Wanted, memoryview]]:
    """The content of each wanted chunk, verified, in the order of the packs.

    At most about READ_BYTES (or the largest chunk) are held at a time. Raises DamagedError naming the item
    and the checkpoint, CheckpointError when the store does not answer.
    """
    order = sorted(wanted, key=lambda w: (w.chunk.pack, w.chunk.at))
    for pack in dict.fromkeys(w.chunk.pack for w in order):
        check_size(location, manifest, pack)
    first = 0
    while first < len(order):
        pack, start = order[first].chunk.pack, order[first].chunk.at
        end = start + order[first].chunk.bytes
        last = first + 1
        while last < len(order) and order[last].chunk.pack == pack:
            chunk = order[last].chunk
            if chunk.at > end or chunk.at + chunk.bytes - start > READ_BYTES:
                break
            end = max(end, chunk.at + chunk.bytes)
            last += 1
        data = memoryview(_range(location, manifest, order[first], start, end))
        for item in order[first:last]:
            at = item.chunk.at - start
            yield item, _content(manifest, item, data[at : at + item.chunk.bytes])
        first = last


def check_size(location: Location, manifest: Manifest, pack: int) -> None:
    """Raises DamagedError unless the pack is there with exactly its bytes."""
    path, expected = manifest.packs[pack].path, manifest.packs[pack].bytes
    try:
        size = location.size(path)
    except FileNotFoundError:
        raise DamagedError(f"{manifest.name}: {path} is missing") from None
    if size != expected:
        raise DamagedError(f"{manifest.name}: {path} has {size} bytes instead of {expected}")


def _range(location: Location, manifest: Manifest, item: Wanted, start: int, end: int) -> bytes:
    if start == end:
        return b""
    path = manifest.packs[item.chunk.pack].path
    try:
        return location.get(path, start, end)
    except FileNotFoundError:
        raise DamagedError(f"{manifest.name}: {item.tensor}: its pack {path} is missing") from None


def _content(manifest: Manifest, item: Wanted, stored: memoryview) -> memoryview:
    chunk = item.chunk
    where = f"{manifest.name}: {item.tensor} in {manifest.packs[chunk.pack].path}"
    if stored.nbytes != chunk.bytes:
        raise DamagedError(f"{where}: cut short: {stored.nbytes} of {chunk.bytes} bytes")
    if hashlib.sha256(stored).hexdigest() != (chunk.stored or chunk.hash):
        raise DamagedError(f"{where}: its hash does not match")
    if chunk.codec == "raw":
        return stored
    expected = manifest.tensors[item.tensor].content_bytes(chunk)
    try:
        # The frame's own claim is not trusted with memory: no more than the tensor needs is ever produced.
        if zstandard.frame_content_size(stored) != expected:
            raise DamagedError(f"{where}: holds another number of bytes than the tensor")
        content = zstandard.ZstdDecompressor().decompress(stored, max_output_size=expected)
    except zstandard.ZstdError as error:
        raise DamagedError(f"{where}: cannot be decompressed: {error}") from None
    if hashlib.sha256(content).hexdigest() != chunk.hash:
        raise DamagedError(f"{where}: its hash does not match after decompression")
    return memoryview(content)
