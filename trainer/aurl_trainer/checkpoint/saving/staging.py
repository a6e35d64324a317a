"""The copy of a rank's part of the state in host memory: all that a training step waits for.

One buffer serves all saves of a process; it is as large as what this rank saves, and pinned where the state
is on a CUDA device. While a save is on its way nothing else may be staged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.distributed.checkpoint.planner import WriteItem

ALIGNMENT = 64
"""Bytes: every element type may begin there."""
_NOTHING = torch.empty(0, dtype=torch.uint8)


@dataclass(frozen=True)
class Box:
    """A box of a tensor and its bytes: row-major, in the staging buffer."""

    key: str
    dtype: str
    size: tuple[int, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    content: memoryview


class Staging:
    """The buffer. `bytes` is its size, `pinned` whether devices copy into it at full speed."""

    def __init__(self) -> None:
        self._buffer = _NOTHING
        self._bytes = memoryview(b"")

    @property
    def bytes(self) -> int:
        """Host memory that it takes."""
        return self._buffer.numel()

    @property
    def pinned(self) -> bool:
        """Whether it is page-locked."""
        return torch.cuda.is_available() and self._buffer.is_pinned()

    def stage(self, boxes: Sequence[tuple[WriteItem, torch.Tensor]]) -> list[Box]:
        """Copies the boxes; what they show is valid until the next call. Equal views are copied once.

        Raises RuntimeError or MemoryError when there is no memory for it.
        """
        places: dict[tuple[Any, ...], int] = {}
        end = 0
        for _, tensor in boxes:
            if places.setdefault(_identity(tensor), end) == end:
                end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        cuda = any(tensor.is_cuda for _, tensor in boxes)
        self._reserve(end, cuda)
        done: set[int] = set()
        found = []
        with torch.no_grad():
            for item, tensor in boxes:
                at = places[_identity(tensor)]
                if tensor.nbytes and at not in done:
                    done.add(at)
                    target = self._buffer[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                    target.copy_(tensor, non_blocking=cuda)
                found.append(box_of(item, self._bytes[at : at + tensor.nbytes]))
        if cuda:
            torch.cuda.synchronize()
        return found

    def _reserve(self, size: int, cuda: bool) -> None:
        if size > self.bytes:
            # The old one goes first: there may not be room for both.
            self._bytes = memoryview(b"")
            self._buffer = _NOTHING
            self._buffer = torch.empty(size, dtype=torch.uint8, pin_memory=cuda)
            self._bytes = memoryview(cast(Any, self._buffer.numpy()))


def _identity(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The same for two views of the same memory, as tied weights are; empty tensors take no room."""
    if not tensor.nbytes:
        return ("empty",)
    return (
        tensor.data_ptr(),
        tensor.dtype,
        tuple(tensor.shape),
        tensor.stride(),
        tensor.is_conj(),
        tensor.is_neg(),
    )


def box_of(item: WriteItem, content: memoryview) -> Box:
    """The box that DCP planned, with its bytes."""
    data = item.tensor_data
    assert data is not None  # the planner lets nothing else pass
    return Box(
        item.index.fqn,
        str(data.properties.dtype).removeprefix("torch."),
        tuple(data.size),
        tuple(data.chunk.offsets),
        tuple(data.chunk.sizes),
        content,
    )
