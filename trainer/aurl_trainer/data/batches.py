"""Which samples make up which step, whatever the number of ranks.

A run is defined over samples and logical shards. The order of samples is the infinite concatenation of one
permutation per epoch; step s takes positions [sB, (s+1)B) of it, B the global batch. A global batch is cut
into equal logical shards, the micro-batches, and ranks share these out. So a change of the world size, or a
resume, changes who computes a shard and nothing else.

Not here: how a sample gets its tokens (dataset.py), and random streams, which the loop keys by
(seed, step, shard).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IGNORED = -100
"""Target of a position that is not predicted: what torch's cross entropy ignores by default."""

Ids = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Samples(Protocol):
    """What batches need of a dataset; `LazyMidiDataset` is one."""

    sequence_length: int
    pad_id: int
    targets: Ids
    """Predicted tokens of each sample, int64 [samples]."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> Tensor:
        """Tokens of one sample, int64 [sequence_length + 1], padded at the end."""
        ...


@dataclass(frozen=True)
class BatchPlan:
    """The order of `samples` samples in global batches of `global_batch`, cut into `shards` shards.

    Stateless: every answer follows from the four numbers and the step, so a resume needs nothing but the
    step. An epoch takes each sample once; a batch may lie across two epochs, and nothing is dropped at an
    epoch's end. Raises ValueError if a number is below one or `shards` does not divide `global_batch`.
    """

    samples: int
    global_batch: int
    shards: int
    seed: int

    def __post_init__(self) -> None:
        if min(self.samples, self.global_batch, self.shards) < 1:
            raise ValueError("samples, global_batch and shards must be at least 1")
        if self.global_batch % self.shards:
            raise ValueError(f"{self.shards} shards do not divide a global batch of {self.global_batch}")

    @property
    def shard_size(self) -> int:
        """Samples in one shard."""
        return self.global_batch // self.shards

    def epoch(self, step: int) -> int:
        """The epoch, from 0, of the step's first sample."""
        return step * self.global_batch // self.samples

    def sample_ids(self, step: int) -> Ids:
        """The samples of a step (from 0), int64 [global_batch], in order."""
        positions = np.arange(step * self.global_batch, (step + 1) * self.global_batch, dtype=np.int64)
        ids = np.empty_like(positions)
        epochs = positions // self.samples
        for epoch in np.unique(epochs):
            here = epochs == epoch
            ids[here] = permutation(self.samples, self.seed, int(epoch))[positions[here] % self.samples]
        return ids

    def shard_ids(self, step: int, shard: int) -> Ids:
        """The samples of one logical shard of a step, int64 [global_batch / shards]."""
        return self.sample_ids(step)[shard * self.shard_size : (shard + 1) * self.shard_size]


@lru_cache(maxsize=4)
def permutation(samples: int, seed: int, epoch: int) -> Ids:
    """A permutation of range(samples) that depends on (seed, epoch) alone, int64 [samples], read-only.

    Indices are sorted by a keyed hash (SplitMix64: Steele, Lea, Flood 2014, "Fast splittable pseudorandom
    number generators"). numpy's own generators may change their streams between versions (NEP 19); a run
    must not. The hash is a bijection of 64-bit numbers, so no two keys tie.
    """
    start = mix(mix(_word(seed)) + _word(epoch))
    keys = mix(start + np.arange(1, samples + 1, dtype=np.uint64) * _GOLDEN)
    order = np.argsort(keys).astype(np.int64)
    order.setflags(write=False)
    return order


def _word(number: int) -> npt.NDArray[np.uint64]:
    """A number from 0 as uint64 [1], spread out so that neighbours share no sequence."""
    return np.array([number + 1], dtype=np.uint64) * _GOLDEN


def mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's output function: one to one on uint64; overflow wraps, as it should."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def rank_shards(shards: int, rank: int, world: int) -> list[int | None]:
    """The shards that a rank computes in a step, one a micro-step; None is a padding shard.

    As many for every rank, so that ranks meet in each collective. Raises ValueError for a rank outside
    the world.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is not in a world of {world}")
    steps = -(-shards // world)
    mine = range(rank, steps * world, world)
    return [shard if shard < shards else None for shard in mine]


@dataclass(frozen=True)
class MicroBatch:
    """One logical shard of a step, b = global_batch / shards samples of L tokens.

    `shard` is its number; a padding shard has weight 0, no ids and nothing to predict, and the number
    `shards`, which no real one has. `inputs` is int64 [b, L], `targets` int64 [b, L]: the token after each
    input, or `IGNORED` where the sample has ended.
    """

    step: int
    shard: int
    weight: float
    ids: Ids
    inputs: Tensor
    targets: Tensor


def micro_batches(
    dataset: Samples, plan: BatchPlan, step: int, rank: int = 0, world: int = 1
) -> Iterator[MicroBatch]:
    """The micro-batches of a rank in a step, in order, equally many for all ranks."""
    for shard in rank_shards(plan.shards, rank, world):
        if shard is None:
            shape = (plan.shard_size, dataset.sequence_length)
            yield MicroBatch(
                step,
                plan.shards,
                0.0,
                np.empty(0, dtype=np.int64),
                torch.full(shape, dataset.pad_id, dtype=torch.int64),
                torch.full(shape, IGNORED, dtype=torch.int64),
            )
        else:
            ids = plan.shard_ids(step, shard)
            inputs, targets = collate(dataset, ids)
            yield MicroBatch(step, shard, 1.0, ids, inputs, targets)


def collate(dataset: Samples, ids: Ids) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the samples `ids` (int64 [b]), each int64 [b, L], as MicroBatch has them."""
    tokens = torch.stack([dataset[int(i)] for i in ids])
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].clone()
    # By length, not by value: what is padding is known from the index.
    ends = torch.from_numpy(dataset.targets[ids]).unsqueeze(1)
    targets[torch.arange(targets.shape[1]).unsqueeze(0) >= ends] = IGNORED
    return inputs, targets


def global_tokens(dataset: Samples, plan: BatchPlan, step: int) -> int:
    """How many tokens the whole global batch predicts: the denominator of its loss, on every rank alike."""
    return int(dataset.targets[plan.sample_ids(step)].sum())
