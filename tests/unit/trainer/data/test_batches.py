"""The order of samples: one permutation an epoch, the same whatever the world and wherever it resumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aurl_trainer.data.batches import (
    IGNORED,
    BatchPlan,
    MicroBatch,
    global_tokens,
    micro_batches,
    permutation,
    rank_shards,
)

numbers = st.integers(1, 400)
seeds = st.integers(0, 2**31 - 1)


class Counted:
    """Samples whose tokens name them: sample i has i % L + 1 targets and the tokens i, i, i..."""

    sequence_length = 8
    pad_id = 0

    def __init__(self, samples: int) -> None:
        self.targets = np.arange(samples, dtype=np.int64) % self.sequence_length + 1

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Tensor:
        row = torch.zeros(self.sequence_length + 1, dtype=torch.int64)
        row[: int(self.targets[index]) + 1] = index + 1
        return row


@given(samples=numbers, seed=seeds, epoch=st.integers(0, 2**20))
def test_an_epoch_is_a_bijection(samples: int, seed: int, epoch: int) -> None:
    order = permutation(samples, seed, epoch)
    assert sorted(order.tolist()) == list(range(samples)), "each sample exactly once an epoch"


@given(samples=numbers, seed=seeds, epochs=st.lists(st.integers(0, 50), min_size=2, max_size=8))
def test_the_order_is_stateless(samples: int, seed: int, epochs: list[int]) -> None:
    permutation.cache_clear()
    forwards = {e: permutation(samples, seed, e).tolist() for e in epochs}
    permutation.cache_clear()
    backwards = {e: permutation(samples, seed, e).tolist() for e in reversed(epochs)}
    assert forwards == backwards, "what was asked before must not matter"


def test_the_order_never_changes_between_versions() -> None:
    # Written down once. If this fails, every run that is resumed would see other samples than it planned.
    assert permutation(10, 1, 0).tolist() == [2, 9, 7, 0, 5, 1, 4, 3, 8, 6]
    assert permutation(10, 1, 1).tolist() == [6, 8, 5, 1, 0, 4, 9, 3, 2, 7]


def test_seeds_and_epochs_are_unrelated() -> None:
    n = 2000
    orders = [permutation(n, seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).sum() < 12, "about one position in n agrees by chance"
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.1, "two orders must not be correlated"


@given(samples=numbers, shard_size=st.integers(1, 8), shards=st.integers(1, 8), seed=seeds)
def test_steps_walk_through_whole_epochs(samples: int, shard_size: int, shards: int, seed: int) -> None:
    plan = BatchPlan(samples, shard_size * shards, shards, seed)
    steps = 2 * samples // plan.global_batch + 2
    walked = np.concatenate([plan.sample_ids(s) for s in range(steps)])
    for epoch in range(len(walked) // samples):
        part = walked[epoch * samples : (epoch + 1) * samples]
        assert sorted(part.tolist()) == list(range(samples)), f"epoch {epoch} must take each sample once"
        assert part.tolist() == permutation(samples, seed, epoch).tolist()
    assert [plan.epoch(s) for s in range(steps)] == [s * plan.global_batch // samples for s in range(steps)]


@given(shards=st.integers(1, 40), world=st.integers(1, 40))
def test_ranks_share_out_every_shard_once(shards: int, world: int) -> None:
    shares = [rank_shards(shards, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1, "equally many micro-steps for every rank"
    assert sorted(s for share in shares for s in share if s is not None) == list(range(shards))
    assert len(shares[0]) == -(-shards // world), "no more padding than needed"


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="rank 2 is not in a world of 2"):
        rank_shards(4, 2, 2)


@pytest.mark.parametrize("numbers", [(0, 4, 2), (9, 0, 1), (9, 4, 0), (9, 4, 3)])
def test_a_plan_that_cannot_be_is_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|do not divide"):
        BatchPlan(*numbers, seed=1)


def everything(
    dataset: Counted, plan: BatchPlan, worlds: dict[int, int], steps: int
) -> dict[tuple[int, int], MicroBatch]:
    """All real micro-batches of a run whose world is `worlds[step]`, by (step, shard)."""
    found: dict[tuple[int, int], MicroBatch] = {}
    for step in range(steps):
        world = worlds[step]
        per_rank = [list(micro_batches(dataset, plan, step, rank, world)) for rank in range(world)]
        assert len({len(batches) for batches in per_rank}) == 1
        for batch in (b for batches in per_rank for b in batches):
            if batch.weight == 0:
                assert batch.shard == plan.shards and len(batch.ids) == 0
                assert (batch.targets == IGNORED).all(), "a padding shard predicts nothing"
                assert batch.inputs.shape == (plan.shard_size, dataset.sequence_length)
            else:
                assert (step, batch.shard) not in found, "no shard twice"
                found[step, batch.shard] = batch
    return found


@pytest.mark.parametrize(
    "worlds",
    [
        pytest.param(dict.fromkeys(range(12), 2), id="world 2"),
        pytest.param(dict.fromkeys(range(12), 3), id="world 3, padded: 3 does not divide 4 shards"),
        pytest.param(dict.fromkeys(range(12), 7), id="more ranks than shards"),
        pytest.param({s: 1 if s < 3 else 3 if s < 7 else 2 for s in range(12)}, id="changing in the middle"),
    ],
)
def test_the_same_samples_in_the_same_shards_in_every_world(worlds: dict[int, int]) -> None:
    # 29 samples in batches of 8: epochs end inside batches, at steps 3, 7 and 10.
    dataset, plan, steps = Counted(29), BatchPlan(29, 8, 4, seed=5), 12
    alone = everything(dataset, plan, dict.fromkeys(range(steps), 1), steps)
    assert sorted(alone) == [(s, k) for s in range(steps) for k in range(4)]
    together = everything(dataset, plan, worlds, steps)
    assert together.keys() == alone.keys()
    for at, batch in alone.items():
        assert together[at].ids.tolist() == batch.ids.tolist(), f"other samples in (step, shard) {at}"
        assert torch.equal(together[at].inputs, batch.inputs), f"other inputs in (step, shard) {at}"
        assert torch.equal(together[at].targets, batch.targets), f"other targets in (step, shard) {at}"


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_resume_goes_on_where_it_left(world: int) -> None:
    dataset = Counted(29)
    whole = [
        [b.ids.tolist() for b in micro_batches(dataset, BatchPlan(29, 8, 4, 5), step, rank, world)]
        for step in range(10)
        for rank in range(world)
    ]
    permutation.cache_clear()  # as in a new process
    resumed = [
        [b.ids.tolist() for b in micro_batches(dataset, BatchPlan(29, 8, 4, 5), step, rank, world)]
        for step in range(4, 10)
        for rank in range(world)
    ]
    assert resumed == whole[4 * world :]


def test_inputs_and_targets_are_one_token_apart_and_padding_is_ignored() -> None:
    dataset, plan = Counted(29), BatchPlan(29, 8, 4, seed=5)
    for batch in micro_batches(dataset, plan, 0):
        for row, index in enumerate(batch.ids):
            count = int(dataset.targets[index])
            assert batch.inputs[row].tolist() == dataset[int(index)][:-1].tolist()
            assert batch.targets[row, :count].tolist() == dataset[int(index)][1 : count + 1].tolist()
            assert (batch.targets[row, count:] == IGNORED).all()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_denominator_counts_what_all_ranks_predict(world: int) -> None:
    dataset, plan = Counted(29), BatchPlan(29, 8, 4, seed=5)
    for step in range(8):
        batches = [b for rank in range(world) for b in micro_batches(dataset, plan, step, rank, world)]
        assert global_tokens(dataset, plan, step) == sum(int((b.targets != IGNORED).sum()) for b in batches)
