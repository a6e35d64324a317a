"""Sharded models: FSDP2 and tensor parallel on real gloo processes, and other numbers of ranks afterwards.

Each state is compared to the bit with that of one process: weights and the optimizer's moments.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from aurl_trainer.checkpoint.dcp import content
from aurl_trainer.engine.resume.weights import Weights, examine
from tests.unit.trainer.checkpoint.ranks.pool import RankPool
from tests.unit.trainer.checkpoint.small import checkpointer, state

pytestmark = pytest.mark.processes


class Net(nn.Module):
    """Sizes that two and three ranks do not divide, one of them smaller than the number of ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 10)
        self.norm = nn.LayerNorm(10)
        self.down = nn.Linear(10, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.norm(self.up(x)))  # type: ignore[no-any-return]


def build(seed: int, how: str, world: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model: nn.Module = Net()
    if how == "fsdp":
        fully_shard(model.up)
        fully_shard(model)
    elif how == "tensor":
        plan: Any = {"up": ColwiseParallel(), "down": RowwiseParallel()}
        mesh = init_device_mesh("cpu", (world,))
        model.norm = nn.Identity()
        parallelize_module(model, mesh, plan)
    elif how == "ddp":
        model = nn.parallel.DistributedDataParallel(model)
    elif how == "plain without norm":
        model.norm = nn.Identity()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=False)


def digest(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """SHA-256 over whole weights and the optimizer's whole state, in the order of the parameters."""
    found = hashlib.sha256()
    bare = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    for name, parameter in bare.named_parameters():
        kept = {"weight": parameter.detach(), **optimizer.state[parameter]}
        for key, value in sorted(kept.items()):
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            found.update(f"{name}.{key}".encode() + content(whole))
    return found.hexdigest()


def train_and_save(rank: int, world: int, uri: str, how: str) -> str:
    model, optimizer = build(1, how, world)
    for step in range(2):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
        model(x).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    saver = checkpointer(uri, rank, world)
    saver.open({})
    saver.save(2, state(model, optimizer), {})
    return digest(model, optimizer)


def load(rank: int, world: int, uri: str, how: str) -> str:
    model, optimizer = build(9, how, world)
    opened = checkpointer(uri, rank, world).open(state(model, optimizer))
    assert opened.restored is not None and opened.restored.step == 2
    return digest(model, optimizer)


def test_fsdp_on_two_loads_on_two_on_one_on_three_and_under_ddp(
    two: RankPool, three: RankPool, tmp_path: Path
) -> None:
    uri = f"file://{tmp_path}/run"
    saved, again = two.run(train_and_save, uri, "fsdp")
    assert saved == again and isinstance(saved, str), saved
    assert two.run(load, uri, "fsdp") == [saved] * 2, "2 to 2"
    assert load(0, 1, uri, "plain") == saved, "2 to 1"
    assert three.run(load, uri, "fsdp") == [saved] * 3, "2 to 3"
    assert two.run(load, uri, "ddp") == [saved] * 2, "FSDP2 to DDP"


def certified(rank: int, world: int, uri: str, how: str) -> Weights:
    """What the resume certificate says of the weights after a load."""
    model, optimizer = build(9, how, world)
    parts = state(model, optimizer)
    opened = checkpointer(uri, rank, world).open(parts)
    assert opened.restored is not None
    return examine(parts["model"].capture(), opened.restored.manifest, "model")


def test_a_certificate_of_sharded_weights_has_no_digest_and_one_of_whole_ones_does_not_depend_on_who_saved(
    two: RankPool, tmp_path: Path
) -> None:
    by_two, by_one = f"file://{tmp_path}/two", f"file://{tmp_path}/one"
    two.run(train_and_save, by_two, "fsdp")
    assert two.run(certified, by_two, "fsdp") == [Weights(None)] * 2
    whole = certified(0, 1, by_two, "plain")
    assert whole.digest is not None and whole.problem is None
    model, optimizer = build(9, "plain", 1)
    checkpointer(by_two, 0, 1).open(state(model, optimizer))
    saver = checkpointer(by_one)
    saver.open({})
    saver.save(2, state(model, optimizer), {})
    assert certified(0, 1, by_one, "plain") == whole


def test_one_loads_on_three_and_ddp_loads_under_fsdp(two: RankPool, three: RankPool, tmp_path: Path) -> None:
    alone = f"file://{tmp_path}/alone"
    saved = train_and_save(0, 1, alone, "plain")
    assert three.run(load, alone, "fsdp") == [saved] * 3, "1 to 3"
    uri = f"file://{tmp_path}/ddp"
    replicated = two.run(train_and_save, uri, "ddp")[0]
    assert two.run(load, uri, "fsdp") == [replicated] * 2, "DDP to FSDP2"
    sharded = f"file://{tmp_path}/three"
    thirds = three.run(train_and_save, sharded, "fsdp")[0]
    assert load(0, 1, sharded, "plain") == thirds, "3 to 1"


def test_tensor_parallel_on_two_loads_on_two_and_on_one(two: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    saved = two.run(train_and_save, uri, "tensor")[0]
    assert isinstance(saved, str), saved
    assert two.run(load, uri, "tensor") == [saved] * 2
    assert load(0, 1, uri, "plain without norm") == saved
