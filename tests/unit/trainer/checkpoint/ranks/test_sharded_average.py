"""Averaged weights of a sharded model: built before FSDP2 shards it, saved by two, loaded by two and by one.

Two real gloo processes; every comparison of what was saved with what comes back is to the bit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from aurl_trainer.checkpoint.dcp import content
from aurl_trainer.config.average import AverageConfig
from aurl_trainer.engine.state.averages import AveragedWeights
from tests.unit.trainer.checkpoint.ranks.pool import RankPool
from tests.unit.trainer.checkpoint.ranks.test_sharded import Net
from tests.unit.trainer.checkpoint.small import checkpointer, state

pytestmark = pytest.mark.processes

KINDS = {
    "ema": AverageConfig(kind="ema", decay=0.75),
    "swa": AverageConfig(kind="swa", start=1, every=2),
}


class Trained:
    """A model, its optimizer and its average; sharded over the world if it has more than one rank."""

    def __init__(self, seed: int, kind: str, world: int) -> None:
        torch.manual_seed(seed)
        self.model = Net()
        self.average = AveragedWeights(self.model, KINDS[kind])
        if world > 1:
            for model in (self.model, self.average.module):
                fully_shard(model.up)
                fully_shard(model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, foreach=False)

    @property
    def parts(self) -> dict[str, Any]:
        return {**state(self.model, self.optimizer), "average": self.average}

    def train(self, *steps: int) -> None:
        for step in steps:
            x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
            self.model(x).pow(2).mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.average.stepped(step)

    def whole(self) -> dict[str, torch.Tensor]:
        """The averaged weights, each whole on every rank."""
        found = self.average.capture()
        return {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in found.items()}

    def digest(self) -> str:
        found = hashlib.sha256()
        for name, value in sorted(self.whole().items()):
            found.update(name.encode() + content(value.detach()))
        return found.hexdigest()


def train_and_save(rank: int, world: int, uri: str, kind: str) -> tuple[str, str, bool]:
    """Digests of the average after four steps, which are saved, and after two more; whether it is sharded."""
    run = Trained(1, kind, world)
    run.train(1, 2, 3, 4)
    saver = checkpointer(uri, rank, world)
    saver.open({})
    saver.save(4, run.parts, {"average": run.average.state()})
    saved = run.digest()
    run.train(5, 6)
    return saved, run.digest(), any(isinstance(v, DTensor) for v in run.average.capture().values())


def load_and_train(rank: int, world: int, uri: str, kind: str) -> tuple[str, str]:
    run = Trained(9, kind, world)
    restored = checkpointer(uri, rank, world).open(run.parts).restored
    assert restored is not None and restored.step == 4
    run.average.restore(restored.extra["average"])
    loaded = run.digest()
    run.train(5, 6)
    return loaded, run.digest()


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_on_two_ranks_and_on_one(two: RankPool, tmp_path: Path, kind: str) -> None:
    uri = f"file://{tmp_path}/run"
    results = two.run(train_and_save, uri, kind)
    assert results[0] == results[1], results
    saved, later, sharded = results[0]
    assert sharded, "the average was not sharded, so nothing is shown"
    assert saved != later
    assert two.run(load_and_train, uri, kind) == [(saved, later)] * 2, "2 to 2, and two steps on"
    assert load_and_train(0, 1, uri, kind)[0] == saved, "2 to 1"


def averaged(rank: int, world: int, kind: str) -> dict[str, torch.Tensor]:
    run = Trained(1, kind, world)
    run.train(1, 2, 3, 4)
    return run.whole()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_one_process_averages(two: RankPool, kind: str) -> None:
    alone = averaged(0, 1, kind)
    for found in two.run(averaged, kind):
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, msg=lambda text, n=name: f"{n}: {text}")


def test_one_rank_saves_and_two_load(two: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    saved, _, sharded = train_and_save(0, 1, uri, "ema")
    assert not sharded
    assert [loaded for loaded, _ in two.run(load_and_train, uri, "ema")] == [saved] * 2, "1 to 2"


def test_the_average_of_a_model_that_is_sharded_already_is_refused_by_torch(two: RankPool) -> None:
    """Why it is built first. When torch copies sharded models, this order need not be kept."""
    for kind, *_ in two.run(average_too_late):
        assert kind != "built", "AveragedModel copies a sharded model now"


def average_too_late(rank: int, world: int) -> tuple[str]:
    model: nn.Module = Net()
    fully_shard(model)
    try:
        AveragedWeights(model, KINDS["ema"])
    except Exception as error:
        return (type(error).__name__,)
    return ("built",)
