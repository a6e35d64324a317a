"""Where each byte of a checkpoint's tensors goes in one safetensors file. Pure.

A file is 8 bytes with the length of its header, the header (JSON, padded with spaces), and the tensors one
after the other, row-major, little-endian, without holes (https://huggingface.co/docs/safetensors).
Not here: reading and writing (writing.py), what the metadata say (described.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.format.manifest import ITEM_BYTES, Chunk, Tensor

TYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "uint16": "U16", "int16": "I16", "float16": "F16", "bfloat16": "BF16",
    "uint32": "U32", "int32": "I32", "float32": "F32",
    "uint64": "U64", "int64": "I64", "float64": "F64", "complex64": "C64",
}  # fmt: skip
"""The format's names of our element types. It has none for complex128."""

ALIGNMENT = 8


@dataclass(frozen=True)
class Layout:
    """A file: its first bytes, where each tensor begins, and its size in bytes."""

    header: bytes
    starts: Mapping[str, int]
    size: int

    @property
    def content_bytes(self) -> int:
        """Bytes of all tensors."""
        return self.size - len(self.header)


@dataclass(frozen=True)
class Run:
    """`count` bytes that lie together both in what was handed in, from byte `source`, and in the tensor."""

    source: int
    target: int
    count: int


def lay_out(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Layout:
    """The file of these tensors. Raises CheckpointError for an element type that the format lacks."""
    # The widest types first, so that each tensor is aligned to its own; the format's own writer does so, too.
    order = sorted(tensors, key=lambda k: (-ITEM_BYTES[tensors[k].dtype], k))
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    begin = 0
    begins = {}
    for key in order:
        tensor = tensors[key]
        if tensor.dtype not in TYPES:
            raise CheckpointError(f"{key} is of type {tensor.dtype}, for which safetensors has no name")
        end = begin + math.prod(tensor.size) * ITEM_BYTES[tensor.dtype]
        shape = list(tensor.size)
        entries[key] = {"dtype": TYPES[tensor.dtype], "shape": shape, "data_offsets": [begin, end]}
        begins[key], begin = begin, end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    return Layout(header, {k: len(header) + b for k, b in begins.items()}, len(header) + begin)


def runs(tensor: Tensor, chunk: Chunk, at: int, count: int) -> Iterator[Run]:
    """Where bytes [at, at + count) of the chunk's content lie in its tensor; `source` counts from `at`."""
    item = ITEM_BYTES[tensor.dtype]
    sizes, offsets, whole = chunk.sizes or (1,), chunk.offsets or (0,), tensor.size or (1,)
    strides = [item * math.prod(whole[d + 1 :]) for d in range(len(whole))]
    # Dimensions from `inner` on lie together: all after it are taken whole.
    inner = len(whole) - 1
    while inner and sizes[inner] == whole[inner]:
        inner -= 1
    block = sizes[inner] * strides[inner]
    if not block or not count:
        return
    end = at + count
    corner = sum(o * s for o, s in zip(offsets, strides, strict=True))
    for number in range(at // block, -(-end // block)):
        begin, left = corner, number
        for dim in reversed(range(inner)):
            left, index = divmod(left, sizes[dim])
            begin += index * strides[dim]
        first, last = max(at, number * block), min(end, (number + 1) * block)
        yield Run(first - at, begin + first - number * block, last - first)
