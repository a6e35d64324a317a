"""The past of a run on the store, by a seed: generations, saves, tags, and what was promoted elsewhere."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.config.checkpoint import CheckpointConfig, KeepConfig
from aurl_trainer.store.copying import copy
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.tags import set_tag
from tests.unit.trainer.store.faulty import FaultyFileSystem

URI = "faulty://run"
RUN = "stops"
MODELS = "faulty://models"
"""Where checkpoints are promoted to."""

KEPT = "kept"
"""A tag that some pasts have."""
TAG = "production"
"""The tag that works set, move and delete."""


def state_of(step: int) -> dict[str, Any]:
    """What is saved at a step: tensors that the step decides; one never changes."""
    generator = torch.Generator().manual_seed(step)
    return {
        "model": {"w": torch.randn(24, generator=generator), "fixed": torch.arange(8.0)},
        "step": {"n": torch.tensor(step)},
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two states are equal to the bit."""
    return all(torch.equal(one[part][key], other[part][key]) for part in one for key in one[part])


def checkpointer(keep: KeepConfig) -> Checkpointer:
    """A process's view of the store."""
    settings = CheckpointConfig(keep=keep, compression=0)
    return Checkpointer(URI, run=RUN, fingerprint={"seed": 1}, settings=settings, rank=0, world=1)


def metrics(step: int) -> dict[str, float]:
    """Some saves are better than others, and some were not measured."""
    return {} if step % 5 == 0 else {"val_nll": float((step * 7) % 11)}


def at(uri: str) -> RunStore:
    """Another process's view of a place."""
    return RunStore(Location(uri))


def promote(name: CheckpointName) -> None:
    """As `aurl checkpoints promote` does."""
    target = at(MODELS)
    set_tag(target, TAG, copy(at(URI), name, target, lambda size: None, any_run=True).name)


@dataclass(frozen=True)
class Past:
    """What is on the store, the rules of retention, the newest save that was acknowledged (0: none), and what
    each tag names at each place."""

    objects: dict[str, bytes]
    keep: KeepConfig
    acknowledged: int
    tags: Mapping[str, Mapping[str, CheckpointName]]


def past(seed: int) -> Past:
    """Up to three generations of up to four saves each; some saves get a tag or are promoted."""
    chance = random.Random(seed)
    keep = KeepConfig(latest=chance.randint(1, 3), best=chance.randint(0, 2), grace_seconds=0)
    FaultyFileSystem.clear()
    step = 0
    for _ in range(chance.randint(0, 3)):
        saver = checkpointer(keep)
        saver.open(state_of(0))
        saver.saver.tidy()
        for _ in range(chance.randint(0, 4)):
            step += 1
            saver.save(step, state_of(step), {"step": step}, metrics(step))
            if chance.random() < 0.2:
                set_tag(at(URI), KEPT, chance.choice(at(URI).valid()))
            if chance.random() < 0.2:
                promote(chance.choice(at(URI).valid()))
    tags = {uri: at(uri).tags() for uri in (URI, MODELS)}
    return Past(FaultyFileSystem.snapshot(), keep, step, tags)
