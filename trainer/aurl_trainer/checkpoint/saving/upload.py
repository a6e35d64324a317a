"""From staged bytes to durable packs: hash, refer to what is there already, compress, write in parallel.

Runs in the thread of a save. No torch, no collectives. Not here: the commit (saver.py).
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aurl_trainer.checkpoint.saving.staging import Box
from aurl_trainer.store.format.compression import Compression
from aurl_trainer.store.format.manifest import Pack
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.packs import PIECE_BYTES, PackWriter
from aurl_trainer.store.format.pieces import Piece, PieceChunk
from aurl_trainer.store.incremental import Placed, reusable
from aurl_trainer.store.location.place import Location

SPLIT_BYTES = 64 * 2**20
"""A rank's pack is divided for parallel uploads where each has at least so much to write."""

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
    ) -> Uploaded:
        """Durable on return. `earlier` is what the last committed checkpoint holds, by hash.

        `alive` is called between pieces and raises to give the save up. Raises CheckpointError when the store
        refuses.
        """
        hashes = self._hashes(boxes, alive)
        contents = dict(zip(hashes, boxes, strict=True))
        sizes = [(h, box.content.nbytes) for h, box in contents.items()]
        kept = reusable(sizes, earlier, name.number, self._whole_every)
        fresh = [(h, box) for h, box in contents.items() if h not in kept]
        placed = kept | self._write(fresh, name, alive)
        return Uploaded(
            self._piece(name, list(zip(hashes, boxes, strict=True)), placed),
            placed,
            sum(p.stored.bytes for h, p in placed.items() if h not in kept),
            sum(p.stored.bytes for p in kept.values()),
        )

    def _hashes(self, boxes: Sequence[Box], alive: Callable[[], None]) -> list[str]:
        if self._hashers == 1:
            return [_hash(box.content, alive) for box in boxes]
        with ThreadPoolExecutor(self._hashers, thread_name_prefix="hash") as pool:
            return list(pool.map(lambda box: _hash(box.content, alive), boxes))

    def _write(
        self, fresh: Sequence[tuple[str, Box]], name: CheckpointName, alive: Callable[[], None]
    ) -> dict[str, Placed]:
        shares = _divide(fresh, self._uploads)
        if len(shares) <= 1:
            return {} if not shares else self._write_pack(shares[0], name.pack(self._rank), alive)
        failed: list[BaseException] = []

        def watched() -> None:
            alive()
            if failed:
                raise failed[0]

        def write(part: int) -> dict[str, Placed]:
            try:
                return self._write_pack(shares[part], name.pack(self._rank, part), watched)
            except BaseException as error:
                failed.append(error)  # the others need not go on
                raise

        with ThreadPoolExecutor(len(shares), thread_name_prefix="upload") as pool:
            results = list(pool.map(write, range(len(shares))))
        return {h: placed for result in results for h, placed in result.items()}

    def _write_pack(
        self, share: Sequence[tuple[str, Box]], path: str, alive: Callable[[], None]
    ) -> dict[str, Placed]:
        found = {}
        with self._location.writing(path) as file:
            pack = PackWriter(file, self._compression.level, alive)
            for digest, box in share:
                key = f"{box.key} {box.offsets} {box.content.nbytes}"
                worth = self._compression.worth(key, box.content)
                found[digest] = pack.add(box.content, digest, worth)
                if worth:
                    self._compression.learned(key, box.content.nbytes, found[digest].bytes)
        whole = Pack(path=path, bytes=pack.bytes)
        return {digest: Placed(whole, stored) for digest, stored in found.items()}

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


def _divide(fresh: Sequence[tuple[str, Box]], most: int) -> list[list[tuple[str, Box]]]:
    """Neighbouring contents into at most `most` packs of about equal size, each worth an object."""
    total = sum(box.content.nbytes for _, box in fresh)
    count = max(1, min(most, total // SPLIT_BYTES))
    before = itertools.accumulate((box.content.nbytes for _, box in fresh), initial=0)
    shares: list[list[tuple[str, Box]]] = [[] for _ in range(count)]
    for at, item in zip(before, fresh, strict=False):
        shares[min(count - 1, math.floor(at * count / max(total, 1)))].append(item)
    return [share for share in shares if share]
