"""A small model with what makes saving hard: tied weights, buffers, scalars, frozen parameters, groups."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.checkpoint.dcp import content
from aurl_trainer.checkpoint.parts import ModelPart, OptimizerPart
from aurl_trainer.checkpoint.saving.outcomes import Saved
from aurl_trainer.checkpoint.saving.saver import Saver
from aurl_trainer.config.checkpoint import CheckpointConfig, KeepConfig
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore

IDENTITY: dict[str, Any] = {"seed": 1, "model": {"dim": 16}}


class Small(nn.Module):
    """An embedding tied to its output layer, a norm, buffers, a frozen half-precision parameter, a scalar."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, width)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.head = nn.Linear(width, 50, bias=False)
        self.head.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Parameter(torch.randn(3, dtype=torch.bfloat16), requires_grad=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("nothing", torch.empty(0, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.head(self.layers(self.embedding(x)) * self.scale)


def make(seed: int, width: int = 16) -> tuple[Small, torch.optim.AdamW]:
    """A model and its optimizer with two groups."""
    torch.manual_seed(seed)
    model = Small(width)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1]},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return model, torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, *steps: int) -> None:
    """One optimizer step for each number, on data that the number decides."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x = torch.randint(50, (8,), generator=generator)
        nn.functional.cross_entropy(model(x), x.roll(1)).backward()
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (1 + step)
        optimizer.step()
        optimizer.zero_grad()


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """As the training loop passes it."""
    return {"model": ModelPart(model), "optimizer": OptimizerPart(model, optimizer)}


def hash_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """SHA-256 over every bit of weights, buffers and optimizer state, and the groups' settings."""
    digest = hashlib.sha256()
    bare = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    for key, tensor in bare.state_dict().items():
        digest.update(key.encode() + content(tensor))
    saved = optimizer.state_dict()
    for index in sorted(saved["state"]):
        for key, value in sorted(saved["state"][index].items()):
            digest.update(f"{index}.{key}".encode() + content(value))
    digest.update(repr(saved["param_groups"]).encode())
    return digest.hexdigest()


def checkpointer(uri: str, rank: int = 0, world: int = 1, **changes: Any) -> Checkpointer:
    """With this file's identity and settings unless told otherwise."""
    settings = {k: changes.pop(k) for k in CheckpointConfig.model_fields.keys() & changes.keys()}
    given: dict[str, Any] = {
        "run": "small",
        "fingerprint": IDENTITY,
        "settings": CheckpointConfig(**({"keep": KeepConfig(latest=3, best=1, grace_seconds=0)} | settings)),
        "rank": rank,
        "world": world,
    }
    return Checkpointer(uri, **(given | changes))


def opened(uri: str, state: dict[str, Any], **settings: Any) -> Saver:
    """A saver for this generation, which has resumed into `state` and has nothing left to sweep."""
    found = checkpointer(uri, **settings)
    found.open(state)
    found.saver.tidy()
    return found.saver


def steps(uri: str) -> list[int]:
    """Of the checkpoints that count."""
    return [n.step for n in RunStore(Location(uri)).valid()]


def finish(saver: Saver) -> Saved:
    """What the save under way came to, when all that follows it is over."""
    saved = saver.finish()
    saver.tidy()
    assert saved is not None
    return saved


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """The system starts no thread any more in this process: each asks for more stack than there can be."""
    usual = threading.stack_size(2**60)
    try:
        yield
    finally:
        threading.stack_size(usual)
