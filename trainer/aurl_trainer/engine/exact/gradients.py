"""The gradient of a global batch, bit for bit the same for every number of ranks and every order.

Here: who converts when, and the exchange between ranks. Not here: the arithmetic (fixed_point.py), a shard's
own gradient (engine/step.py), what cannot be exact (refusals.py).

Quanta follow from the gradient of logical shard 0, which rank 0 computes first in every world. Should another
shard's not fit them, all shards are computed again with quanta that fit all. Both depend on the global batch
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aurl_trainer.contract import Phase
from aurl_trainer.data.batches import MicroBatch
from aurl_trainer.engine.exact.fixed_point import NOT_FINITE, Grid, add, magnitudes, nothing, values
from aurl_trainer.engine.parallel import World
from aurl_trainer.errors import ConfigError, DivergedError

BUCKET = 1 << 22
"""Elements that travel at once: 32 MiB as integers, which is the memory that the exchange needs besides."""

T = TypeVar("T")


class ExactGradients:
    """Sums the gradients of `model` (float32, on its device) over the `shards` of a global batch.

    Needs 8 bytes of memory a parameter beside the gradient, and moves 12 (W - 1) / W bytes a parameter from
    each of W ranks in a step.
    """

    def __init__(self, model: nn.Module, shards: int, world: World) -> None:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._names, self._parameters = [n for n, _ in named], [p for _, p in named]
        self._buffers = dict(model.named_buffers())
        self._shards, self._world = shards, world
        self._ends = torch.tensor([p.numel() for p in self._parameters]).cumsum(0).tolist()
        elements = -(-self._ends[-1] // world.size) * world.size
        self._total = torch.zeros(elements, dtype=torch.int64, device=world.device)
        self.repeated = 0
        """Steps whose shards were computed twice, as the first quanta did not fit."""

    def collect(
        self,
        step: int,
        batches: Sequence[MicroBatch],
        backward: Callable[[MicroBatch], T],
        phase: Callable[[Phase, int], None],
    ) -> list[T]:
        """Leaves the global batch's gradient in every parameter; what `backward` gave for each real shard.

        `batches` are this rank's, in order; padding shards are passed over. `backward` adds a shard's
        gradient to the parameters and may be called twice for one shard. Raises DivergedError when a gradient
        is not finite, ConfigError when the model changes a buffer, RuntimeError when a shard that is computed
        twice gives two gradients: on all ranks alike, but for the buffer's.
        """
        real = [b for b in batches if b.weight]
        before = {name: buffer._version for name, buffer in self._buffers.items()}
        results, grid, seen = self._pass(step, real, backward, phase, None)
        self._check_buffers(before)
        self._check_finite(step, seen)
        if not grid.holds(seen):
            self.repeated += 1
            expected = seen
            results, grid, seen = self._pass(
                step, real, backward, phase, Grid.around(expected, self._shards, margin=0)
            )
            if not torch.equal(seen, expected):
                raise RuntimeError(
                    f"step {step}: a shard that was computed twice gave two gradients: the model draws "
                    "numbers of its own or uses a kernel that is not deterministic"
                )
        self._deliver(grid)
        return results

    def _pass(
        self,
        step: int,
        batches: Sequence[MicroBatch],
        backward: Callable[[MicroBatch], T],
        phase: Callable[[Phase, int], None],
        grid: Grid | None,
    ) -> tuple[list[T], Grid, Tensor]:
        """All shards once; without a grid, one is made around shard 0.

        What `backward` gave, the grid, and the largest magnitudes over all shards of all ranks.
        """
        self._total.zero_()
        zeros = nothing(len(self._parameters), self._world.device)
        results, seen = [], zeros
        for batch in batches:
            phase(Phase.STEP, step)
            for parameter in self._parameters:
                parameter.grad = None
            results.append(backward(batch))
            gradients = [self._gradient(p) for p in self._parameters]
            here = magnitudes(gradients)
            seen = torch.maximum(seen, here)
            grid = grid or self._first_grid(step, here, phase)
            add(self._total, gradients, grid)
        grid = grid or self._first_grid(step, zeros, phase)
        phase(Phase.SYNC, step)
        if self._world.size > 1:
            dist.all_reduce(seen, dist.ReduceOp.MAX)
        return results, grid, seen

    def _first_grid(self, step: int, mine: Tensor, phase: Callable[[Phase, int], None]) -> Grid:
        """The grid around rank 0's first shard, which is shard 0."""
        if self._world.size > 1:
            phase(Phase.SYNC, step)
            mine = mine.clone()
            dist.broadcast(mine, 0)
            phase(Phase.STEP, step)
        return Grid.around(mine, self._shards)

    def _gradient(self, parameter: nn.Parameter) -> Tensor:
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

    def _deliver(self, grid: Grid) -> None:
        """Adds up what the ranks hold and puts it into the parameters' gradients."""
        for parameter in self._parameters:
            parameter.grad = torch.empty_like(parameter, memory_format=torch.contiguous_format)
        size, rank = self._world.size, self._world.rank
        step = BUCKET // size * size
        for start in range(0, len(self._total), step):
            bucket = self._total[start : start + step]
            share = len(bucket) // size
            if size > 1:
                # Each rank adds up one share of the bucket and hands it out as float32, so the way back is
                # half as wide as an all-reduce's.
                received = torch.empty_like(bucket)
                dist.all_to_all_single(received, bucket)
                bucket = received.view(size, share).sum(0)
            mine = torch.zeros(share, dtype=torch.float32, device=bucket.device)
            for tensor, a, b, _ in self._pieces(start + rank * share, share):
                values(bucket[a:b], grid, tensor, mine[a:b])
            whole = mine
            if size > 1:
                whole = torch.empty(share * size, dtype=torch.float32, device=bucket.device)
                dist.all_gather_single(whole, mine)
            for tensor, a, b, at in self._pieces(start, len(whole)):
                gradient = self._parameters[tensor].grad
                assert gradient is not None
                gradient.view(-1)[at : at + b - a] = whole[a:b]

    def _pieces(self, start: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Which tensors lie in elements start .. start + length - 1 of all: (tensor, from, to, its element).

        `from` and `to` count from `start`; `its element` is the tensor's own at `from`.
        """
        first = 0
        for tensor, end in enumerate(self._ends):
            a, b = max(first, start), min(end, start + length)
            if a < b:
                yield tensor, a - start, b - start, a - first
            first = end

    def _check_finite(self, step: int, seen: Tensor) -> None:
        wrong = [self._names[i] for i in (seen == NOT_FINITE).nonzero().flatten().tolist()]
        if wrong:
            more = f" and of {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise DivergedError(
                f"step {step}: the gradient of {wrong[0]}{more} is not finite; lower "
                "engine.optimizer.learning_rate or use precision bf16 or fp32"
            )

    def _check_buffers(self, before: dict[str, int]) -> None:
        changed = [name for name, buffer in self._buffers.items() if buffer._version != before[name]]
        if changed:
            raise ConfigError(
                [
                    "engine.reproducibility: exact is not possible: training changes the model's buffer "
                    f"{name}, in an order that depends on the world"
                    for name in changed
                ]
            )
