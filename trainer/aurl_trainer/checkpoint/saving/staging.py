"""The copy of a rank's part of the state in host memory: all that a training step waits for.

One buffer serves all saves of a process; it is as large as what this rank saves, and pinned where the state
is on a CUDA device. While a save is on its way nothing else may be staged.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch.distributed.checkpoint.planner import WriteItem

log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class _Layout:
    """Where in the buffer each box goes; the same from save to save as long as the boxes are.

    Of `found`, `copied` are the numbers of those that are copied, into `targets`.
    """

    items: list[WriteItem] = field(default_factory=list)
    identities: list[tuple[Any, ...]] = field(default_factory=list)
    copied: list[int] = field(default_factory=list)
    targets: list[torch.Tensor] = field(default_factory=list)
    found: list[Box] = field(default_factory=list)


class Staging:
    """The buffer. `bytes` is its size, `pinned` whether devices copy into it at full speed."""

    def __init__(self) -> None:
        self._buffer = _NOTHING
        self._bytes = memoryview(b"")
        self._layout = _Layout()
        self._unlock: Callable[[], object] = lambda: None

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

        Raises RuntimeError or MemoryError when there is no memory for it; what cannot be page-locked serves.
        """
        items = [item for item, _ in boxes]
        identities = [_identity(tensor) for _, tensor in boxes]
        if self._layout.items != items or self._layout.identities != identities:
            self._layout = _Layout()  # it would keep the old buffer
            self._layout = self._lay_out(boxes, identities)
        layout = self._layout
        cuda = any(tensor.is_cuda for _, tensor in boxes)
        with torch.no_grad():
            # One call for all: by single ones training would wait for Python as long as for the copy.
            sources = [boxes[number][1] for number in layout.copied]
            if sources:
                torch._foreach_copy_(layout.targets, sources, non_blocking=cuda)
        if cuda:
            torch.cuda.synchronize()
        return list(layout.found)

    def _lay_out(
        self, boxes: Sequence[tuple[WriteItem, torch.Tensor]], identities: list[tuple[Any, ...]]
    ) -> _Layout:
        places: dict[tuple[Any, ...], int] = {}
        copied = []
        end = 0
        for number, (_, tensor) in enumerate(boxes):
            if identities[number] not in places:
                places[identities[number]] = end
                end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
                if tensor.nbytes:
                    copied.append(number)
        self._reserve(end, any(tensor.is_cuda for _, tensor in boxes))
        targets, found = [], []
        for number in copied:
            tensor, at = boxes[number][1], places[identities[number]]
            targets.append(self._buffer[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        for number, (item, tensor) in enumerate(boxes):
            at = places[identities[number]]
            found.append(box_of(item, self._bytes[at : at + tensor.nbytes]))
        return _Layout([item for item, _ in boxes], identities, copied, targets, found)

    def _reserve(self, size: int, cuda: bool) -> None:
        if size > self.bytes:
            # The old one goes first: there may not be room for both.
            self._unlock()
            self._bytes = memoryview(b"")
            self._buffer = _NOTHING
            buffer = _own_pages(size) if cuda else torch.empty(size, dtype=torch.uint8)
            self._unlock = lambda: None
            if cuda:
                try:
                    lock(buffer.data_ptr(), size)
                except RuntimeError as error:
                    log.warning("saves are copied more slowly, their memory cannot be page-locked: %s", error)
                else:
                    self._unlock = weakref.finalize(self, _unlock, buffer.data_ptr())
            self._buffer = buffer
            self._bytes = memoryview(cast(Any, self._buffer.numpy()))


def _own_pages(size: int) -> torch.Tensor:
    """Memory that shares no page with anything else: what is locked already cannot be locked again."""
    return torch.frombuffer(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype=torch.uint8)


def lock(address: int, size: int) -> None:
    """Page-locks memory, for devices to copy into at full speed. Raises RuntimeError.

    torch's own pinned memory comes in powers of two, up to twice what is asked for, and takes longer to get.
    """
    code = torch.cuda.cudart().cudaHostRegister(address, size, 0)  # type: ignore[no-untyped-call]
    try:
        torch.cuda.check_error(code)
    except RuntimeError:
        # CUDA keeps an error until somebody asks, and the next to ask would be the training's own kernel.
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device="cuda")
        raise


def _unlock(address: int) -> None:
    torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]


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
