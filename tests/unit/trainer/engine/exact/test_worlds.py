"""Real gloo worlds of 1, 2 and 3: the same weights, losses and validation, to the bit, in exact mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aurl_trainer.contract import ExitCode, Phase
from aurl_trainer.data.batches import MicroBatch, rank_shards
from aurl_trainer.engine.exact.gradients import ExactGradients
from aurl_trainer.engine.exact.platform import KERNELS, PROCESSORS, agreed, platforms, summary
from aurl_trainer.engine.parallel import World
from tests.unit.trainer.engine.worlds import Worlds, train, world_of

pytestmark = pytest.mark.processes

SHARDS = 4


EXACT = {"reproducibility": "exact", "threads": 1, "batch": {"global_batch": 8, "shards": SHARDS}}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_is_the_same_in_every_world(worlds: Worlds, tmp_path: Path, precision: str) -> None:
    fields = {**EXACT, "precision": precision}
    alone, *_ = worlds.run(1, train, str(tmp_path / "1"), None, fields)
    assert len(alone["losses"]) == 12 and len(alone["validation"]) == 3, "the run did not go to its end"
    for size in (2, 3):
        ranks = worlds.run(size, train, str(tmp_path / str(size)), None, fields)
        first = ranks[0]
        assert first["losses"] == alone["losses"], f"losses and norms in a world of {size}"
        assert first["validation"] == alone["validation"], f"validation in a world of {size}"
        assert {r["weights"] for r in ranks} == {alone["weights"]}, f"weights in a world of {size}"


def test_an_ordinary_run_is_not_the_same_in_every_world(worlds: Worlds, tmp_path: Path) -> None:
    """The control: without exact sums this very comparison fails."""
    fields = {"batch": EXACT["batch"]}
    alone, *_ = worlds.run(1, train, str(tmp_path / "1"), None, fields)
    three, *_ = worlds.run(3, train, str(tmp_path / "3"), None, fields)
    assert three["weights"] != alone["weights"]


def test_a_run_whose_world_changes_equals_the_undisturbed_one(worlds: Worlds, tmp_path: Path) -> None:
    calm, *_ = worlds.run(1, train, str(tmp_path / "calm"), None, EXACT)
    losses, validation = {}, {}
    for size, until in [(1, 2), (2, 5), (3, 7), (2, 9), (1, None)]:
        ranks = worlds.run(size, train, str(tmp_path / "hard"), until, EXACT)
        assert {r["left"] for r in ranks} == {ExitCode.REJOIN if until else None}
        losses.update(ranks[0]["losses"])
        validation.update(ranks[0]["validation"])
    assert losses == calm["losses"]
    assert validation == calm["validation"]
    assert ranks[0]["weights"] == calm["weights"], "the final weights differ from the undisturbed run's"


def _sum(rank: int, size: int, table: list[list[float]]) -> Any:
    """Exact sum of gradients that are given: row s is shard s's. Besides, whether all was done twice."""
    model = nn.ParameterList([nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1, 3))])
    exact = ExactGradients(model, len(table), world_of(rank, size))
    none = torch.empty(0, dtype=torch.int64)
    batches = [
        MicroBatch(0, len(table) if s is None else s, float(s is not None), np.empty(0, np.int64), none, none)
        for s in rank_shards(len(table), rank, size)
    ]

    def backward(batch: MicroBatch) -> int:
        row = torch.tensor(table[batch.shard])
        for parameter, part in zip(model, row.split([2, 3]), strict=True):
            parameter.grad = part.view_as(parameter)
        return batch.shard

    phases: list[Phase] = []
    shards = exact.collect(7, batches, backward, lambda phase, step: phases.append(phase))
    assert phases[-1] is Phase.SYNC
    assert shards == [b.shard for b in batches if b.weight], "padding is not computed"
    return [p.grad.flatten().tolist() for p in model if p.grad is not None], exact.repeated


def test_shards_that_the_first_quanta_do_not_hold_are_done_again(worlds: Worlds) -> None:
    tiny = [1e-3, -2e-3, 0.0, 0.0, 0.0]
    table = [tiny, [3e7, 1.0, 1e-2, 5.0, 0.0], tiny, [-3e7, 2.0, 0.5, -5.0, 0.0], tiny]
    found = [worlds.run(size, _sum, table) for size in (1, 2, 3)]
    assert [rank for ranks in found for rank in ranks] == [found[0][0]] * 6
    (first, second), repeated = found[0][0]
    assert repeated == 1
    assert first == pytest.approx([3e-3, 2.994], rel=1e-6), (
        "the large ones cancel, and the small ones are left"
    )
    assert second == pytest.approx([0.51, 0.0, 0.0], rel=1e-6)
    assert worlds.run(2, _sum, [tiny] * 3)[0][1] == 0, "shards like shard 0 are computed once"


@pytest.mark.parametrize("wrong", [float("nan"), float("-inf")])
def test_a_gradient_that_is_not_finite_on_one_rank_is_named_on_all(worlds: Worlds, wrong: float) -> None:
    table = [[1.0] * 5, [1.0, 1.0, 1.0, wrong, 1.0], [1.0] * 5]
    for size in (1, 2, 3):
        for kind, message, _ in worlds.run(size, _sum, table):
            assert kind == "DivergedError"
            assert "step 7: the gradient of 1 is not finite" in message


def _other_threads(rank: int, size: int) -> Any:
    torch.set_num_threads(1 + rank)
    try:
        return agreed(world_of(rank, size))
    finally:
        torch.set_num_threads(1)


def test_ranks_with_different_threads_are_refused_on_all(worlds: Worlds) -> None:
    for kind, message, _ in worlds.run(2, _other_threads):
        assert kind == "RefusedError"
        assert "threads: '1' in rank 0, '2' in rank 1" in message


def _summary(rank: int, size: int, more: int) -> dict[str, str]:
    torch.set_num_threads(1 + rank * more)
    try:
        return summary(platforms(world_of(rank, size)))
    finally:
        torch.set_num_threads(1)


def test_a_record_tells_of_all_ranks_what_they_compute_with(worlds: Worlds) -> None:
    alone, pair, three = (worlds.run(size, _summary, 0) for size in (1, 2, 3))
    assert all(found == alone[0] for found in (*alone, *pair, *three)), "like ranks, whatever their number"
    first, second = worlds.run(2, _summary, 1)
    assert first == second, "each rank tells the same"
    assert first[KERNELS] != alone[0][KERNELS], "the second rank's threads are not told"
    assert first[PROCESSORS] == alone[0][PROCESSORS]


def _sum_of_scalars(rank: int, size: int) -> list[float]:
    values = [1e16, 1.0, -1e16, 2.0**-60]
    return world_of(rank, size).sum([values[rank::size], [], [0.1]])


def test_sums_of_scalars_do_not_depend_on_the_world(worlds: Worlds) -> None:
    for size in (1, 2, 3):
        for whole, empty, tenths in worlds.run(size, _sum_of_scalars):
            assert (whole, empty) == (1.0 + 2.0**-60, 0.0)
            assert tenths == pytest.approx(0.1 * size)


class Counting(nn.Module):
    """Keeps count of what it has seen, in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.zeros(1))
        self.weight = nn.Parameter(torch.ones(2))


def test_a_buffer_that_training_changes_is_refused_by_name() -> None:
    model = Counting()
    none = torch.empty(0, dtype=torch.int64)
    batch = MicroBatch(0, 0, 1.0, np.empty(0, np.int64), none, none)

    def backward(batch: MicroBatch) -> None:
        model.seen += 1
        model.weight.square().sum().backward()  # type: ignore[no-untyped-call]

    with pytest.raises(Exception, match="changes the model's buffer seen"):
        ExactGradients(model, 1, World.alone("cpu")).collect(0, [batch], backward, lambda phase, step: None)


def test_a_model_that_draws_numbers_of_its_own_is_found_when_it_matters() -> None:
    parameter = nn.ParameterList([nn.Parameter(torch.zeros(1))])
    none = torch.empty(0, dtype=torch.int64)
    batches = [MicroBatch(0, s, 1.0, np.empty(0, np.int64), none, none) for s in range(2)]
    scale = iter([1.0, 1e9, 1.0, 1e12])

    def backward(batch: MicroBatch) -> None:
        parameter[0].grad = torch.tensor([next(scale)])

    with pytest.raises(RuntimeError, match="step 3: a shard that was computed twice gave two gradients"):
        ExactGradients(parameter, 2, World.alone("cpu")).collect(
            3, batches, backward, lambda phase, step: None
        )
