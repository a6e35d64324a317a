"""What may be removed, given which checkpoints stay. Pure.

A folder of packs goes when no manifest that remains refers to any pack in it and no save under way can come
to refer to it. One that is damaged may refer to any packs of earlier saves. Not here: which stay (rules.py),
removing (passes.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from aurl_trainer.store.format.names import CheckpointName, GenerationId
from aurl_trainer.store.retention.rules import Committed

UNFINISHED_SECONDS = 900.0
"""Somebody who is not the writer leaves an interrupted save alone until a later one is so old."""


@dataclass(frozen=True)
class Plan:
    """What goes: manifests first, and only when they are gone the folders of packs."""

    manifests: tuple[CheckpointName, ...] = ()
    folders: tuple[CheckpointName, ...] = ()


def without(
    checkpoints: Sequence[Committed], gone: Collection[CheckpointName], loose: Iterable[CheckpointName]
) -> Plan:
    """Removes the manifests in `gone`, and of the folders in `loose` those that nothing left can refer to.

    Of a damaged one that is left it is unknown what it needs, but no save refers to a later one.
    """
    left = [c for c in checkpoints if c.name not in gone]
    used = {folder for c in left for folder in (*c.folders, c.name.folder)}
    unknown = max((c.name.age for c in left if c.at is None), default=None)
    free = [n for n in loose if n.folder not in used and (unknown is None or n.age > unknown)]
    return Plan(tuple(sorted(gone, key=lambda n: n.age)), tuple(sorted(free, key=lambda n: n.age)))


def as_writer(
    checkpoints: Sequence[Committed],
    folders: Iterable[CheckpointName],
    generations: Iterable[GenerationId],
    mine: GenerationId,
    stay: Collection[CheckpointName],
) -> Plan:
    """What generation `mine` may remove between two of its saves: nothing once there is a later one."""
    if any(g > mine for g in generations) or any(c.name.generation > mine for c in checkpoints):
        return Plan()
    gone = {c.name for c in checkpoints} - set(stay)
    return without(checkpoints, gone, [n for n in folders if n.generation <= mine])


def as_visitor(
    checkpoints: Sequence[Committed],
    folders: Iterable[CheckpointName],
    generations: Iterable[GenerationId],
    stay: Collection[CheckpointName],
    now: float,
) -> Plan:
    """What somebody else may remove while the run may be saving.

    A save under way refers only to packs that the newest manifest refers to, which stays. Its own folder has
    no manifest yet: one of the latest generation goes only when a later save of that generation is there and
    UNFINISHED_SECONDS old, as a generation saves one after the other.
    """
    latest = max([*generations, *(c.name.generation for c in checkpoints)], default=None)
    done = [
        c.name.number
        for c in checkpoints
        if c.name.generation == latest and c.at is not None and c.at <= now - UNFINISHED_SECONDS
    ]
    finished = max(done, default=-1)
    committed = {c.name for c in checkpoints}
    loose = [
        n
        for n in folders
        if n in committed
        or (latest is not None and n.generation < latest)
        or (n.generation == latest and n.number < finished)
    ]
    gone = {c.name for c in checkpoints} - set(stay)
    return without(checkpoints, gone, loose)
