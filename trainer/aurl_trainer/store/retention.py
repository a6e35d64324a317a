"""Which checkpoints stay. Pure: names and metrics in, names out.

Not here: deleting (run_store.py), which happens in an order that leaves no manifest without its packs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from aurl_trainer.store.format.names import CheckpointName, Fence, GenerationId, is_void

BEST_BY = "val_nll"
"""The metric that `keep.best` goes by; lower is better."""


@dataclass(frozen=True)
class Kept:
    """One committed checkpoint as retention sees it; `metric` None: it has none, or is damaged."""

    name: CheckpointName
    metric: float | None = None
    packs: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Sweep:
    """What goes: manifests first, and only when they are gone the folders of packs."""

    manifests: tuple[CheckpointName, ...]
    folders: tuple[str, ...]


def kept(checkpoints: Iterable[Kept], fences: Sequence[Fence], latest: int, best: int) -> set[CheckpointName]:
    """The names of those that stay: of the ones that are not void, the newest `latest` and the best `best`.

    Among equals in the metric the later is better. NaN is never best.
    """
    valid = sorted((c for c in checkpoints if not is_void(c.name, fences)), key=lambda c: c.name.age)
    rated = [(c.metric, c) for c in valid if c.metric is not None and math.isfinite(c.metric)]
    rated.reverse()
    rated.sort(key=lambda pair: pair[0])
    return {c.name for c in valid[-latest:]} | {c.name for _, c in rated[:best]}


def sweep(
    checkpoints: Sequence[Kept],
    folders: Iterable[str],
    fences: Sequence[Fence],
    mine: GenerationId,
    *,
    latest: int,
    best: int,
    orphans_only: bool = False,
) -> Sweep:
    """What generation `mine` may remove between two of its saves.

    Nothing of a later generation, and nothing at all once there is one. A folder of packs goes when no
    remaining manifest refers to any pack in it: what an interrupted save left, and what became superfluous.
    `orphans_only` removes no manifest.
    """
    if any(f.id > mine for f in fences) or any(c.name.generation > mine for c in checkpoints):
        return Sweep((), ())
    stay = kept(checkpoints, fences, latest, best)
    gone = [c.name for c in checkpoints if c.name not in stay and not orphans_only]
    used = {p.rpartition("/")[0] for c in checkpoints if c.name not in gone for p in c.packs}
    used |= {c.name.folder for c in checkpoints if c.name not in gone}
    loose = []
    for folder in folders:
        name = CheckpointName.parse(folder.rpartition("/")[2])
        if name is not None and folder not in used and name.generation <= mine:
            loose.append(folder)
    return Sweep(tuple(sorted(gone, key=lambda n: n.age)), tuple(sorted(loose)))
