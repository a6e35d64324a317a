"""The content of one chunk, coming in pieces, into the tensors that want all or part of it.

Where a CPU tensor takes the whole chunk, its bytes are written into it directly. Else whole rows are put
together and the wanted part of them is copied, so that a piece and a row are all that is held.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch


@dataclass(frozen=True)
class Box:
    """The part of a chunk at `offsets` of size `lengths` that goes into `tensor`, which has that size."""

    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    tensor: torch.Tensor


class Placer:
    """Takes one chunk's content, row-major, piece by piece. `sizes` is the chunk's, in elements."""

    def __init__(self, dtype: torch.dtype, sizes: Sequence[int], boxes: Sequence[Box]) -> None:
        self._dtype = dtype
        self._sizes = tuple(sizes) or (1,)
        self._row = math.prod(self._sizes[1:]) * dtype.itemsize
        self._at = 0
        self._rest = bytearray()
        self._direct = [_bytes_of(b.tensor) for b in boxes if self._takes_all(b)]
        self._parts = [_with_rows(b) for b in boxes if not self._takes_all(b)]
        self._next_row = 0

    def _takes_all(self, box: Box) -> bool:
        whole = (tuple(box.lengths) or (1,)) == self._sizes
        plain = box.tensor.device.type == "cpu" and box.tensor.is_contiguous()
        return whole and plain and box.tensor.dtype == self._dtype

    def add(self, data: memoryview) -> None:
        """The next piece."""
        for destination in self._direct:
            destination[self._at : self._at + data.nbytes] = data
        self._at += data.nbytes
        if self._parts and self._row:
            self._add_rows(data)

    def _add_rows(self, data: memoryview) -> None:
        self._rest += data
        count = len(self._rest) // self._row
        if not count:
            return
        rows, self._rest = self._rest, self._rest[count * self._row :]
        slab = torch.frombuffer(rows, dtype=self._dtype, count=count * self._row // self._dtype.itemsize)
        slab = slab.reshape(count, *self._sizes[1:])
        for box in self._parts:
            begin = max(box.offsets[0], self._next_row)
            end = min(box.offsets[0] + box.lengths[0], self._next_row + count)
            if begin >= end:
                continue
            part = slab.narrow(0, begin - self._next_row, end - begin)
            for dim, (start, length) in enumerate(zip(box.offsets, box.lengths, strict=True)):
                if dim:
                    part = part.narrow(dim, start, length)
            box.tensor.narrow(0, begin - box.offsets[0], end - begin).copy_(part)
        self._next_row += count


def _with_rows(box: Box) -> Box:
    """A scalar as a vector of one."""
    return box if box.lengths else Box((0,), (1,), box.tensor.reshape(1))


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    return memoryview(cast(Any, tensor.reshape(-1).view(torch.uint8).numpy()))
