"""Which bits flip, and what each damages. Pure.

A flip in a manifest damages that checkpoint; in a pack, each one that refers to a chunk over that byte.
In any other object it damages none: names decide what counts, and no weights are there.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.names import MANIFESTS, PACKS


@dataclass(frozen=True)
class Flip:
    """One bit of one object. `path` is below the run's place."""

    path: str
    bit: int

    @property
    def folder(self) -> str:
        """What kind of object it is."""
        return self.path.partition("/")[0]

    def of(self, data: bytes) -> bytes:
        """The object with that bit flipped."""
        flipped = bytearray(data)
        flipped[self.bit // 8] ^= 1 << (self.bit % 8)
        return bytes(flipped)

    def damages(self, manifests: Iterable[Manifest]) -> set[str]:
        """Names of the checkpoints that are not whole any more."""
        if self.folder == MANIFESTS:
            return {m.name for m in manifests if m.checkpoint.manifest == self.path}
        if self.folder != PACKS:
            return set()
        return {m.name for m in manifests if self._is_used_by(m)}

    def _is_used_by(self, manifest: Manifest) -> bool:
        return any(
            manifest.packs[chunk.pack].path == self.path and 0 <= self.bit // 8 - chunk.at < chunk.bytes
            for tensor in manifest.tensors.values()
            for chunk in tensor.chunks
        )


def flips(objects: Mapping[str, bytes], bits: int, seed: int) -> Iterator[Flip]:
    """So many bits of every object, no bit twice."""
    for path, data in sorted(objects.items()):
        chance = random.Random(f"{seed} {path.partition('/')[0]} {len(data)}")
        for bit in sorted(chance.sample(range(8 * len(data)), min(bits, 8 * len(data)))):
            yield Flip(path, bit)
