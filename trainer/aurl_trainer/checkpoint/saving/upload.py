"""From staged bytes to durable packs: hash, refer to what is there, and have the rest written meanwhile.

Runs in the thread of a save. No torch, no collectives. Not here: how packs are written (packing.py), and the
commit (saver.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aurl_trainer.checkpoint.saving.packing import Packing
from aurl_trainer.checkpoint.saving.staging import Box
from aurl_trainer.store.format.compression import Compression
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.packs import PIECE_BYTES
from aurl_trainer.store.format.pieces import Piece, PieceChunk
from aurl_trainer.store.incremental import Placed, reusable
from aurl_trainer.store.location.place import Location

MOST_HASHERS = 4
"""Threads that hash at the same time, at most; a quarter of the cores where there are fewer."""


@dataclass(frozen=True)
class Uploaded:
    """One rank's durable part of a save: bytes written now, and bytes that earlier packs hold already."""

    piece: Piece
    placed: dict[str, Placed]
    written: int
    reused: int


class Uploader:
    """Writes one rank's packs, several at a time on a remote store; remembers what did not shrink."""

    def __init__(self, location: Location, rank: int, *, level: int, uploads: int, whole_every: int) -> None:
        self._location = location
        self._rank = rank
        self._compression = Compression(level)
        self._uploads = 1 if location.local else uploads
        # Training has most of the cores; where there are many, hashing need not be slower than a disk.
        self._hashers = max(1, min(MOST_HASHERS, (os.cpu_count() or 1) // 4))
        self._whole_every = whole_every

    def upload(
        self,
        boxes: Sequence[Box],
        name: CheckpointName,
        earlier: Mapping[str, Placed],
        alive: Callable[[], None],
        deadline: float = math.inf,
    ) -> Uploaded:
        """Durable on return. `earlier` is what the last committed checkpoint holds, by hash.

        `alive` is called between pieces and raises to give the save up. Raises CheckpointError when the store
        refuses, or has not taken all by `deadline` (by time.monotonic).
        """
        digests: list[str] = []
        contents: dict[str, Box] = {}
        with (
            Packing(
                self._location.until(deadline),
                lambda part: name.pack(self._rank, part),
                self._compression,
                most=self._uploads,
                alive=alive,
            ) as packing,
            contextlib.closing(self._hashed(boxes, alive)) as hashed,
        ):
            for digest, box in hashed:
                digests.append(digest)
                if digest not in contents and digest not in earlier:
                    packing.add(digest, box)
                contents.setdefault(digest, box)
            # Only all contents together tell which earlier packs are worth keeping.
            sizes = [(digest, box.content.nbytes) for digest, box in contents.items()]
            kept = reusable(sizes, earlier, name.number, self._whole_every)
            for digest, box in contents.items():
                if digest in earlier and digest not in kept:
                    packing.add(digest, box)
            written = packing.finish()
        placed = kept | written
        return Uploaded(
            self._piece(name, list(zip(digests, boxes, strict=True)), placed),
            placed,
            sum(p.stored.bytes for p in written.values()),
            sum(p.stored.bytes for p in kept.values()),
        )

    def _hashed(self, boxes: Sequence[Box], alive: Callable[[], None]) -> Generator[tuple[str, Box]]:
        """Each box with its content's hash, in order."""
        if self._hashers == 1:
            yield from ((_hash(box.content, alive), box) for box in boxes)
            return
        pool = ThreadPoolExecutor(self._hashers, thread_name_prefix="hash")
        try:
            futures = [pool.submit(_hash, box.content, alive) for box in boxes]
            yield from ((future.result(), box) for future, box in zip(futures, boxes, strict=True))
        finally:
            pool.shutdown(cancel_futures=True)

    def _piece(
        self, name: CheckpointName, boxes: Sequence[tuple[str, Box]], placed: Mapping[str, Placed]
    ) -> Piece:
        packs = list(dict.fromkeys(placed[h].pack for h, _ in boxes))
        index = {pack: i for i, pack in enumerate(packs)}
        chunks = []
        for digest, box in boxes:
            stored = placed[digest].stored
            chunks.append(
                PieceChunk(
                    key=box.key,
                    dtype=box.dtype,
                    size=box.size,
                    offsets=box.offsets,
                    sizes=box.sizes,
                    pack=index[placed[digest].pack],
                    at=stored.at,
                    bytes=stored.bytes,
                    codec=stored.codec,
                    hash=stored.hash,
                    stored=stored.stored,
                )
            )
        return Piece(name=str(name), rank=self._rank, packs=tuple(packs), chunks=tuple(chunks))


def _hash(content: memoryview, alive: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    for start in range(0, content.nbytes, PIECE_BYTES):
        alive()
        digest.update(content[start : start + PIECE_BYTES])
    return digest.hexdigest()
