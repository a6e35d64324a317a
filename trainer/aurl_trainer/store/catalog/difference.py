"""How two checkpoints differ: configuration, metrics, tensors. Pure: two manifests in, plain values out."""

from __future__ import annotations

from dataclasses import dataclass

from aurl_trainer.store.catalog.entries import Entry
from aurl_trainer.store.format.identity import differences
from aurl_trainer.store.format.manifest import Manifest, Tensor


@dataclass(frozen=True)
class Difference:
    """What is not the same in `b` as in `a`."""

    config: tuple[str, ...]
    """`dotted.path: old -> new`."""
    metrics: dict[str, tuple[float | None, float | None]]
    tensors: dict[str, str]
    """By key: `only in the first`, `only in the second`, another type or size, or `other values`."""
    same_tensors: int
    unknown: tuple[str, ...]
    """Tensors cut into other chunks, whose hashes cannot be compared."""


def difference(a: Manifest, b: Manifest) -> Difference:
    """All that differs between two checkpoints, told from their manifests alone."""
    names = sorted(a.metrics.keys() | b.metrics.keys())
    metrics = {n: (a.metrics.get(n), b.metrics.get(n)) for n in names}
    tensors: dict[str, str] = {}
    unknown = []
    for key in sorted(a.tensors.keys() | b.tensors.keys()):
        one, other = a.tensors.get(key), b.tensors.get(key)
        if one is None or other is None:
            tensors[key] = "only in the second" if one is None else "only in the first"
        elif (one.dtype, one.size) != (other.dtype, other.size):
            tensors[key] = f"{described(one)} -> {described(other)}"
        elif (same := _same_values(one, other)) is None:
            unknown.append(key)
        elif not same:
            tensors[key] = "other values"
    both = len(a.tensors.keys() & b.tensors.keys())
    changed = sum(1 for key in tensors if key in a.tensors and key in b.tensors)
    return Difference(
        tuple(differences(dict(Entry.of(a).config), dict(Entry.of(b).config))),
        {n: pair for n, pair in metrics.items() if pair[0] != pair[1]},
        tensors,
        both - changed - len(unknown),
        tuple(unknown),
    )


def described(tensor: Tensor) -> str:
    """Type and size, as in `float32[64, 256]`."""
    return f"{tensor.dtype}[{', '.join(map(str, tensor.size))}]"


def _same_values(a: Tensor, b: Tensor) -> bool | None:
    """Whether the contents are the same; None: cut into other boxes, so that hashes cannot tell."""
    left = {(c.offsets, c.sizes): c.hash for c in a.chunks}
    right = {(c.offsets, c.sizes): c.hash for c in b.chunks}
    return None if left.keys() != right.keys() else left == right
