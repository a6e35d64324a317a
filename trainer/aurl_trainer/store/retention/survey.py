"""All that is committed at a place, as retention needs it: little of each checkpoint.

From the index where that tells it, else from the manifests. Not here: the index (catalog/index.py), what
becomes of each (rules.py, plan.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.catalog.entries import Entry
from aurl_trainer.store.catalog.index import gather, read_index
from aurl_trainer.store.format.manifest import check_version
from aurl_trainer.store.format.names import PACKS, CheckpointName
from aurl_trainer.store.retention.rules import Committed
from aurl_trainer.store.run_store import RunStore


@dataclass(frozen=True)
class Survey:
    """Every checkpoint, oldest first, and by name what the index may tell of it."""

    checkpoints: tuple[Committed, ...]
    entries: Mapping[str, Entry]


def survey(
    store: RunStore, *, strict: bool = False, stop: Callable[[], bool] = lambda: False
) -> Survey | None:
    """All that is committed, whatever counts.

    None when not all of it is known: a manifest is of a newer format or cannot be read now, or `stop()` said
    so. `strict`: raises CheckpointError then.
    """
    names = store.committed()
    found = gather(store, names, _told(store), stop=stop)
    entries = {e.name: e for e in found.entries}
    try:
        for error in found.problems.values():
            if not isinstance(error, DamagedError):
                raise error
        for entry in found.entries:
            check_version(entry.version, entry.name)
    except CheckpointError:
        if strict:
            raise
        return None
    return Survey(tuple(_committed(n, entries.get(str(n))) for n in names), entries)


def _told(store: RunStore) -> dict[str, Entry]:
    """What the index tells wholly; a store that refuses it is no harm."""
    try:
        return {name: entry for name, entry in read_index(store.location).items() if entry.whole}
    except CheckpointError:
        return {}


def _committed(name: CheckpointName, entry: Entry | None) -> Committed:
    if entry is None:
        return Committed(name)
    folders = frozenset(f"{PACKS}/{f}" for f in entry.folders or ())
    return Committed(name, entry.at, entry.metrics, folders)
