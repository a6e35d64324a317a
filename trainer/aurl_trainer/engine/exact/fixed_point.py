"""Gradients as fixed-point integers: numbers whose sum no order can change.

A float32 becomes a whole number of quanta, int64; integers add exactly, in any order; the sum becomes a
float32 once. What a quantum is must follow from the global batch alone, never from who computes what. Method
and error bound: docs/reproducibility.md, after Demmel and Nguyen 2013 and 2015 (reproducible summation by
pre-rounding). Not here: who has which gradient, and the exchange between ranks (gradients.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MARGIN = 16
"""How many binary orders a gradient may lie above the one that the quanta were chosen by."""
FLOOR = 20
"""A tensor's quantum is at most so many binary orders finer than that of the largest tensor."""
NOT_FINITE = 1025
"""The magnitude of a tensor with an infinite or NaN element."""
_ZERO = -1022
_LEAST, _MOST = -200, 128
"""Beyond the magnitudes of float32."""
_BITS = 62
"""Of the sum, without its sign; one is left over."""
_BLOCK = 1 << 15
"""Elements that a CPU converts at once: what lies between fits its cache, which is five times as fast."""


@dataclass(frozen=True)
class Grid:
    """What the sum of up to `shards` lists of tensors is counted in.

    Tensor t is counted in quanta of 2**`quantum`[t], and fits while its magnitude is at most `limit`[t]; both
    int64 [tensors].
    """

    quantum: Tensor
    limit: Tensor

    @classmethod
    def around(cls, magnitudes: Tensor, shards: int, margin: int = MARGIN) -> Grid:
        """Quanta for tensors up to 2**`margin` times larger than `magnitudes`, int64 [tensors], say.

        Up to `shards` integers of a tensor within its limit cannot overflow an int64. A tensor of zeros gets
        its quantum from the largest one (`FLOOR`).
        """
        reference = torch.maximum(magnitudes, magnitudes.max() - FLOOR).clamp(_LEAST, _MOST)
        limit = reference + margin
        return cls(limit + (shards - 1).bit_length() - _BITS, limit)

    def holds(self, magnitudes: Tensor) -> bool:
        """Whether tensors of these magnitudes can be counted without overflow."""
        return bool((magnitudes <= self.limit).all())


def magnitudes(tensors: Sequence[Tensor]) -> Tensor:
    """int64 [tensors]: the least e with all |x| < 2**e; `NOT_FINITE` where an element is infinite or NaN."""
    extremes = torch.stack([torch.stack(torch.aminmax(tensor)) for tensor in tensors])
    largest = extremes.abs().amax(1).double()
    # The exponent's bits of a double; those of zero give the least of all.
    return ((largest.view(torch.int64) >> 52) & 0x7FF) + _ZERO


def nothing(tensors: int, device: torch.device) -> Tensor:
    """The magnitudes of zeros, int64 [tensors]."""
    return torch.full((tensors,), _ZERO, dtype=torch.int64, device=device)


def add(total: Tensor, tensors: Iterable[Tensor], grid: Grid) -> None:
    """Adds `tensors` (float32), one behind the other, to `total`, int64 [at least as many elements].

    Tensors beyond the grid's limit leave garbage: check `grid.holds`.
    """
    at = 0
    for tensor, scale in zip(tensors, _powers(-grid.quantum), strict=True):
        for piece in _blocks(tensor.reshape(-1)):
            # Exact: a float32's 24 bits, moved by a power of two. Rounding is to the nearest, ties to even.
            total[at : at + len(piece)] += piece.double().mul_(scale).round_().long()
            at += len(piece)


def values(total: Tensor, grid: Grid, tensor: int, into: Tensor) -> None:
    """Writes what integers of tensor number `tensor` stand for `into` as many float32 numbers."""
    scale = _powers(grid.quantum[tensor])
    for piece, target in zip(_blocks(total), _blocks(into), strict=True):
        target.copy_(piece.double().mul_(scale))


def _blocks(flat: Tensor) -> tuple[Tensor, ...]:
    """Views of `flat` that are converted one after the other."""
    block = _BLOCK if flat.device.type == "cpu" else max(1, len(flat))
    return torch.split(flat, block)


def _powers(exponents: Tensor) -> Tensor:
    """2**exponents as float64, exactly; exponents are within those of normal doubles."""
    return ((exponents + 1023) << 52).view(torch.float64)
