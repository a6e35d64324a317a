"""Removing checkpoints of a run that is over. Not here: retention while it runs (retention.py)."""

from __future__ import annotations

import math

from aurl_trainer.contract import RunFile
from aurl_trainer.errors import DamagedError
from aurl_trainer.store.format.names import GENERATIONS, MANIFESTS, PACKS, CheckpointName
from aurl_trainer.store.location import Location
from aurl_trainer.store.retention import BEST_BY, Kept
from aurl_trainer.store.run_store import RunStore

FOLDERS = (MANIFESTS, PACKS, GENERATIONS, RunFile.RECORDS, RunFile.LOGS, RunFile.SAMPLES)
"""All that a run writes below its URL. Manifests first: a reader finds whole checkpoints, or none."""


def everything(location: Location) -> None:
    """Deletes all that a run has written; what is not there is no error."""
    for folder in FOLDERS:
        _delete(location, folder)


def _delete(location: Location, folder: str) -> None:
    for child in location.folders(folder):
        _delete(location, f"{folder}/{child}")
    location.delete_folder(folder)


def all_but_best(location: Location, count: int) -> list[CheckpointName]:
    """Deletes all checkpoints but the best `count`, and returns those. Without any metric, the newest stay.

    Raises CheckpointError, having deleted nothing, if a newer Aurl wrote one. A damaged one is no loss.
    """
    store = RunStore(location)
    found: list[Kept] = []
    packs: dict[CheckpointName, frozenset[str]] = {}
    for name in store.valid():
        try:
            manifest = store.manifest(name)
        except DamagedError:
            continue
        packs[name] = frozenset(pack.path for pack in manifest.packs)
        found.append(Kept(name, manifest.metrics.get(BEST_BY), packs[name]))
    rated = [c for c in found if c.metric is not None and math.isfinite(c.metric)]
    newest = sorted(found, key=lambda c: c.name.age, reverse=True)
    order = sorted(rated, key=lambda c: c.metric or 0.0) if rated else newest
    stay = {c.name for c in order[:count]}
    needed = {path.rpartition("/")[0] for name in stay for path in packs[name]}
    location.delete([name.manifest for name in store.committed() if name not in stay])
    for folder in store.pack_folders():
        if folder.folder not in needed:
            location.delete_folder(folder.folder)
    return sorted(stay, key=lambda name: name.age)
