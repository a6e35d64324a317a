"""The fingerprint says which samples a step used, not who used them in what order."""

from __future__ import annotations

import pytest

from aurl_trainer.data.batches import BatchPlan, micro_batches
from aurl_trainer.engine.resume.samples import shown, sums
from tests.unit.trainer.engine.corpus import Windows

PLAN = BatchPlan(samples=len(Windows()), global_batch=8, shards=4, seed=3)


def fingerprint(step: int, world: int) -> str:
    ranks = [
        sums([i for b in micro_batches(Windows(), PLAN, step, rank, world) for i in b.ids.tolist()])
        for rank in range(world)
    ]
    return shown([sum(column) for column in zip(*ranks, strict=True)])


@pytest.mark.parametrize("world", [2, 3, 4])
def test_it_is_the_same_whoever_computes_which_shard(world: int) -> None:
    assert [fingerprint(s, world) for s in range(6)] == [fingerprint(s, 1) for s in range(6)]


def test_no_two_steps_of_an_epoch_share_it() -> None:
    steps = len(Windows()) // PLAN.global_batch
    assert len({fingerprint(step, 1) for step in range(steps)}) == steps


def test_a_sample_less_or_twice_or_exchanged_changes_it() -> None:
    ids = [3, 1, 4, 15, 9, 2, 6, 5]
    others = [ids[:-1], [*ids[:-1], 3], [*ids[:-1], 7], [*ids, 5]]
    assert len({shown(sums(i)) for i in [ids, *others]}) == 5
    assert shown(sums(ids[::-1])) == shown(sums(ids))
