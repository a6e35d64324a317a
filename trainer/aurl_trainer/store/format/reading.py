"""Chunks out of packs, as a stream: read ahead in parallel, every hash checked, memory bounded.

Nothing here holds a whole large chunk: it comes in pieces, and its hash is known with the last of them. Small
ones are verified before they are handed on. Not here: tensors, and how packs are written (packs.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import zstandard

from aurl_trainer.errors import DamagedError
from aurl_trainer.store.format.manifest import Chunk, Manifest

T = TypeVar("T")

PIECE_BYTES = 8 * 2**20
"""Of one request, and of one piece of a large chunk. Neighbouring small chunks are read together."""
READERS = 4
THREADS = "checkpoint-read"
"""What the threads that read are called."""
AHEAD_BYTES = 2 * READERS * PIECE_BYTES
"""Read and not yet taken, at most; beside it there are a piece in use and, for zstd, one decompressed."""


class Objects(Protocol):
    """Where packs lie: a Location, or whatever else has the same bytes under the same names."""

    def get(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes of `name` in [start, end). Raises FileNotFoundError. Called from several threads."""

    def size(self, name: str) -> int:
        """Size in bytes. Raises FileNotFoundError."""


@dataclass(frozen=True)
class Wanted:
    """A chunk to read, and the name of its tensor for messages."""

    tensor: str
    chunk: Chunk


@dataclass(frozen=True)
class Piece:
    """`data` is the content of the chunk from byte `at` on; use it before asking for the next piece.

    `stored` counts the bytes of the pack that have come with it. An empty chunk is one empty piece.
    """

    item: Wanted
    at: int
    data: memoryview
    stored: int


@dataclass(frozen=True)
class _Request:
    """One range of a pack: some whole small chunks, or a part of a single large one."""

    pack: int
    start: int
    end: int
    items: tuple[Wanted, ...]
    whole: bool


def stream(objects: Objects, manifest: Manifest, wanted: Sequence[Wanted]) -> Iterator[Piece]:
    """The content of all wanted chunks in the order of the packs; of each chunk all pieces, in order.

    Raises DamagedError naming item and checkpoint: of a large chunk, pieces may have been handed on before
    that, so whoever takes them in place needs another checkpoint or gives up. Raises CheckpointError when
    the store does not answer.
    """
    order = sorted(wanted, key=lambda w: (w.chunk.pack, w.chunk.at))
    for pack in dict.fromkeys(w.chunk.pack for w in order):
        check_size(objects, manifest, pack)
    with contextlib.closing(_arriving(objects, manifest, list(_requests(manifest, order)))) as arriving:
        for request, data in arriving:
            view = memoryview(data)
            if not request.whole:
                yield from _large(manifest, request, view, arriving)
                continue
            told = 0
            for item in request.items:
                at = item.chunk.at - request.start
                stored = view[at : at + item.chunk.bytes]
                fresh = max(0, at + item.chunk.bytes - told)
                told += fresh
                yield Piece(item, 0, _small(manifest, item, stored), fresh)


def twice(read: Callable[[], T], again: Callable[[DamagedError], None] = lambda error: None) -> T:
    """What `read` gives; where it finds damage it reads once more, of which `again` is told.

    A bit may have flipped on the way, or an answer may have been cut short: only what is found again is
    taken for the store's. For whatever voids, sets aside or removes because of damage.
    """
    try:
        return read()
    except DamagedError as error:
        again(error)
    return read()


def check_size(objects: Objects, manifest: Manifest, pack: int) -> None:
    """Raises DamagedError unless the pack is there with exactly its bytes."""
    path, expected = manifest.packs[pack].path, manifest.packs[pack].bytes
    try:
        size = objects.size(path)
    except FileNotFoundError:
        raise DamagedError(f"{manifest.name}: {path} is missing") from None
    if size != expected:
        raise DamagedError(f"{manifest.name}: {path} has {size} bytes instead of {expected}")


def _requests(manifest: Manifest, order: list[Wanted]) -> Iterator[_Request]:
    first = 0
    while first < len(order):
        chunk = order[first].chunk
        if _is_large(manifest, order[first]):
            end = chunk.at + chunk.bytes
            for start in range(chunk.at, end, PIECE_BYTES):
                yield _Request(chunk.pack, start, min(start + PIECE_BYTES, end), (order[first],), whole=False)
            first += 1
            continue
        end = chunk.at + chunk.bytes
        last = first + 1
        while last < len(order) and order[last].chunk.pack == chunk.pack:
            other = order[last].chunk
            far = other.at + other.bytes
            if other.at > end or far - chunk.at > PIECE_BYTES or _is_large(manifest, order[last]):
                break
            end = max(end, far)
            last += 1
        yield _Request(chunk.pack, chunk.at, end, tuple(order[first:last]), whole=True)
        first = last


def _is_large(manifest: Manifest, item: Wanted) -> bool:
    content = manifest.tensors[item.tensor].content_bytes(item.chunk)
    return item.chunk.bytes > 0 and max(content, item.chunk.bytes) > PIECE_BYTES


def _arriving(
    objects: Objects, manifest: Manifest, requests: list[_Request]
) -> Generator[tuple[_Request, bytes], None, None]:
    """The bytes of all requests in order, fetched ahead by several threads, which end with it."""
    waiting: deque[tuple[_Request, Future[bytes]]] = deque()
    held = 0
    pool = ThreadPoolExecutor(READERS, thread_name_prefix=THREADS)
    try:
        for request in requests:
            size = request.end - request.start
            while waiting and held + size > AHEAD_BYTES:
                done, future = waiting.popleft()
                held -= done.end - done.start
                yield done, future.result()
                del future  # its bytes are in use no longer
            waiting.append((request, pool.submit(_fetch, objects, manifest, request)))
            held += size
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
            del future
    finally:
        # The garbage collector may end what nobody reads to its end, in any thread: none can wait for itself.
        mine = threading.current_thread().name.startswith(THREADS)
        pool.shutdown(wait=not mine, cancel_futures=True)


def _fetch(objects: Objects, manifest: Manifest, request: _Request) -> bytes:
    if request.start == request.end:
        return b""
    path, item = manifest.packs[request.pack].path, request.items[0]
    try:
        data = objects.get(path, request.start, request.end)
    except FileNotFoundError:
        raise DamagedError(f"{manifest.name}: {item.tensor}: its pack {path} is missing") from None
    wanted = request.end - request.start
    if len(data) != wanted:
        raise DamagedError(f"{_where(manifest, item)}: cut short: {len(data)} of {wanted} bytes")
    return data


def _where(manifest: Manifest, item: Wanted) -> str:
    return f"{manifest.name}: {item.tensor} in {manifest.packs[item.chunk.pack].path}"


def _small(manifest: Manifest, item: Wanted, stored: memoryview) -> memoryview:
    """A whole chunk's content, verified."""
    chunk, where = item.chunk, _where(manifest, item)
    if hashlib.sha256(stored).hexdigest() != (chunk.stored or chunk.hash):
        raise DamagedError(f"{where}: its hash does not match")
    if chunk.codec == "raw":
        return stored
    expected = _claimed(manifest, item, stored)
    try:
        content = zstandard.ZstdDecompressor().decompress(stored, max_output_size=expected)
    except zstandard.ZstdError as error:
        raise DamagedError(f"{where}: cannot be decompressed: {error}") from None
    if hashlib.sha256(content).hexdigest() != chunk.hash:
        raise DamagedError(f"{where}: its hash does not match after decompression")
    return memoryview(content)


def _large(
    manifest: Manifest, request: _Request, first: memoryview, arriving: Iterator[tuple[_Request, bytes]]
) -> Iterator[Piece]:
    """A large chunk in pieces, the first of its bytes being `first`; its hash is checked after the last."""
    (item,) = request.items
    feed = _Feed(item.chunk, first, arriving)
    digest = hashlib.sha256()
    at = taken = 0
    pieces = feed.pieces() if item.chunk.codec == "raw" else _decompressed(manifest, item, feed)
    for data in pieces:
        digest.update(data)
        yield Piece(item, at, data, feed.read_bytes - taken)
        at, taken = at + data.nbytes, feed.read_bytes
    if digest.hexdigest() != item.chunk.hash:
        raise DamagedError(f"{_where(manifest, item)}: its hash does not match")


class _Feed:
    """The stored bytes of one large chunk, as they arrive; a file for the decompressor."""

    def __init__(self, chunk: Chunk, first: memoryview, arriving: Iterator[tuple[_Request, bytes]]) -> None:
        self._left = chunk.bytes
        self._first: memoryview | None = first
        self._arriving = arriving
        self.read_bytes = 0

    def read(self, size: int = -1) -> memoryview | bytes:
        """The next piece, however much is asked for: no piece is larger than PIECE_BYTES."""
        if not self._left:
            return b""
        data, self._first = self._first, None
        if data is None:
            data = memoryview(next(self._arriving)[1])
        self._left -= data.nbytes
        self.read_bytes += data.nbytes
        return data

    def pieces(self) -> Iterator[memoryview]:
        """All that is left."""
        while self._left:
            yield memoryview(self.read())


def _decompressed(manifest: Manifest, item: Wanted, feed: _Feed) -> Iterator[memoryview]:
    where = _where(manifest, item)
    first = memoryview(feed.read())
    expected = _claimed(manifest, item, first)
    out = bytearray(min(PIECE_BYTES, expected))
    source: Any = _Joined(first, feed)
    try:
        with zstandard.ZstdDecompressor().stream_reader(
            source, read_size=PIECE_BYTES, closefd=False
        ) as reader:
            left = expected
            while left:
                count = reader.readinto(memoryview(out)[: min(left, len(out))])
                if not count:
                    raise DamagedError(f"{where}: ends before its tensor is full")
                left -= count
                yield memoryview(out)[:count]
            if reader.read(1):
                raise DamagedError(f"{where}: holds another number of bytes than the tensor")
    except zstandard.ZstdError as error:
        raise DamagedError(f"{where}: cannot be decompressed: {error}") from None
    while source.read():  # the requests of what follows a frame are not those of the next chunk
        pass
    if source.digest.hexdigest() != item.chunk.stored:
        raise DamagedError(f"{where}: its hash does not match")


class _Joined:
    """A feed whose first piece has been looked at; hashes what it hands on."""

    def __init__(self, first: memoryview, feed: _Feed) -> None:
        self._first: memoryview | None = first
        self._feed = feed
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> memoryview | bytes:
        data, self._first = self._first, None
        found = self._feed.read() if data is None else data
        self.digest.update(found)
        return found


def _claimed(manifest: Manifest, item: Wanted, stored: memoryview) -> int:
    """Bytes of the content: what the tensor needs, since a frame's own claim is not trusted with memory."""
    expected = manifest.tensors[item.tensor].content_bytes(item.chunk)
    try:
        claimed = zstandard.frame_content_size(stored)
    except zstandard.ZstdError as error:
        raise DamagedError(f"{_where(manifest, item)}: cannot be decompressed: {error}") from None
    if claimed != expected:
        raise DamagedError(f"{_where(manifest, item)}: holds another number of bytes than the tensor")
    return expected
