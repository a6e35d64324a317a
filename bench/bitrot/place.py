"""A run's place with every kind of object in it: three worlds, references, tags, what killed ones left."""

from __future__ import annotations

from typing import Any

import torch

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.config.checkpoint import CheckpointConfig, KeepConfig
from aurl_trainer.store.aside import set_aside
from aurl_trainer.store.catalog.found import find
from aurl_trainer.store.catalog.index import write_index
from aurl_trainer.store.catalog.scan import Run
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.pieces import Piece
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.presence import Presence
from aurl_trainer.store.retention.announced import announce
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.tags import delete_tag, set_tag
from tests.unit.trainer.store.faulty import Died, FaultyFileSystem

URI = "faulty://rotten"
RUN = "rot"


def state_of(step: int) -> dict[str, Any]:
    """What is saved at a step: some shrinks, some does not, some changes seldom or never."""
    noise = torch.Generator().manual_seed(step)
    return {
        "model": {
            "noise": torch.randn(60, generator=noise),
            "sparse": torch.zeros(300).index_fill(0, torch.arange(0, 300, 50), float(step)),
            "seldom": torch.full((70,), float(step // 3)).cumsum(0),
            "never": torch.arange(40.0),
        },
        "optimizer": {"half": torch.randn(30, generator=noise).bfloat16(), "n": torch.tensor(step)},
    }


def checkpointer() -> Checkpointer:
    """A world's view. Nothing goes, and unchanged contents are written again at the third save."""
    settings = CheckpointConfig(keep=KeepConfig(latest=99, grace_seconds=0), whole_every=3)
    return Checkpointer(URI, run=RUN, fingerprint={"seed": 1}, settings=settings, rank=0, world=1)


def store() -> RunStore:
    """Another process's view."""
    return RunStore(Location(URI))


def save(saver: Checkpointer, *steps: int) -> None:
    """Saves these steps, each with what is expected back."""
    for step in steps:
        saver.save(step, state_of(step), {"step": step}, {"val_nll": 9.0 - step})


def make() -> dict[str, bytes]:
    """All objects of the place, by path."""
    FaultyFileSystem.clear()
    presence = Presence(Location(URI), RUN, every=3600)
    presence.begin()
    first = checkpointer()
    first.open(state_of(0))
    first.saver.tidy()
    save(first, 1, 2, 3, 4)
    second = checkpointer()
    second.open(state_of(0))
    second.saver.tidy()
    save(second, 5, 6)
    third = checkpointer()
    third.open(state_of(0))
    third.saver.tidy()
    save(third, 7)
    place, names = store(), store().committed()
    set_tag(place, "production", names[1])
    set_tag(place, "production", names[2])
    set_tag(place, "old", names[0])
    delete_tag(place, "old")
    set_aside(place.location, names[3], ["its disk is not trusted"])
    announce(place.location, [names[0]])  # of a pass that was killed before it removed anything
    write_index(place.location, find(Run(RUN, place.location)).entries)
    _killed_in_a_save(third, names[-1])
    presence.end()
    return FaultyFileSystem.snapshot()


def _killed_in_a_save(saver: Checkpointer, last: CheckpointName) -> None:
    """What a world of two leaves when it dies before its commit: packs, and the piece of rank 1."""

    def stop(number: int, kind: str, path: str) -> None:
        if "/manifests/" in path:
            raise Died

    FaultyFileSystem.reset(stop)
    try:
        save(saver, 8)
    except Died:
        pass
    finally:
        FaultyFileSystem.reset()
    name = CheckpointName(last.number + 1, 8, last.generation)
    Location(URI).put(name.piece(1), Piece(name=str(name), rank=1, packs=(), chunks=()).to_bytes())
