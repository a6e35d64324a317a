"""Damaged checkpoints set aside: no reader takes them, and nothing of them is lost.

Stores have no rename, so the objects stay where they are; an object of its own says that the checkpoint does
not count. Not here: finding the damage (verify.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from aurl_trainer.store.format.marks import aside_object
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.sealed import seal
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore


def set_aside(location: Location, name: CheckpointName, problems: Sequence[str]) -> None:
    """No reader takes `name` from here on. `problems` are kept for whoever looks at it."""
    record = {"format": "aurl-aside", "version": 1, "at": time.time(), "checkpoint": str(name)}
    location.publish(aside_object(name), seal(record | {"problems": list(problems)}))


def take_back(location: Location, name: CheckpointName) -> None:
    """`name` counts again."""
    location.delete([aside_object(name)])


def clear_gone(store: RunStore) -> None:
    """Deletes the marks of checkpoints that were removed while somebody set them aside. For anybody."""
    gone = [name for name in store.aside() if store.removed(name)]
    store.location.delete([aside_object(name) for name in gone])
