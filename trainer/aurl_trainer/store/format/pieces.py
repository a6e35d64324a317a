"""A rank's piece of a manifest: what it has written, told to rank 0 through the store.

A piece lies beside the rank's packs from the moment these are durable until the manifest is committed. It
travels through the store because the thread that writes it takes part in no collective.
Not here: who waits for whom (checkpoint/saving/).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from pydantic import ValidationError

from aurl_trainer.errors import DamagedError
from aurl_trainer.store.format.manifest import Chunk, FormatModel, Pack, Tensor
from aurl_trainer.store.format.sealed import seal, unseal

FORMAT: Final = "aurl-piece"
VERSION: Final = 1


class PieceChunk(Chunk):
    """A chunk with what its tensor is; `pack` is an index into the piece's own packs."""

    key: str
    dtype: str
    size: tuple[int, ...]


class Piece(FormatModel):
    """What one rank wrote, or refers to, for the checkpoint `name`."""

    format: Literal["aurl-piece"] = FORMAT
    version: Literal[1] = VERSION
    name: str
    rank: int
    packs: tuple[Pack, ...]
    chunks: tuple[PieceChunk, ...]

    def to_bytes(self) -> bytes:
        """The sealed object."""
        return seal(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, data: bytes, name: str, rank: int) -> Piece:
        """The piece of `rank` for the checkpoint `name`. Raises DamagedError for anything else."""
        where = f"{name}: the piece of rank {rank}"
        try:
            piece = cls.model_validate(unseal(data, where))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise DamagedError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if (piece.name, piece.rank) != (name, rank):
            raise DamagedError(f"{where}: belongs to rank {piece.rank} of {piece.name}")
        return piece


def assemble(pieces: Iterable[Piece]) -> tuple[tuple[Pack, ...], dict[str, Tensor]]:
    """The manifest's packs and tensors, from the pieces of all ranks.

    Raises ValueError when the pieces do not cover every tensor exactly.
    """
    packs: dict[str, Pack] = {}
    number: dict[str, int] = {}
    chunks: dict[str, list[Chunk]] = {}
    whole: dict[str, tuple[str, tuple[int, ...]]] = {}
    for piece in pieces:
        for found in piece.chunks:
            pack = piece.packs[found.pack]
            packs.setdefault(pack.path, pack)
            index = number.setdefault(pack.path, len(number))
            fields = {name: getattr(found, name) for name in Chunk.model_fields}
            chunks.setdefault(found.key, []).append(Chunk(**(fields | {"pack": index})))
            whole[found.key] = (found.dtype, found.size)
    tensors = {
        key: Tensor(dtype=dtype, size=size, chunks=tuple(sorted(chunks[key], key=lambda c: c.offsets)))
        for key, (dtype, size) in sorted(whole.items())
    }
    return tuple(packs.values()), tensors
