"""What a run is doing, from what can be seen of it from outside. Pure.

Not here: looking (watch.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from aurl_trainer.store.format.names import CheckpointName


class Stage(StrEnum):
    """Where a run can be struck, in the order of a run's life after a loss."""

    LEAVING = "survivors leave"
    """A loss has happened and a rank of the lost world still lives."""
    RENDEZVOUS = "rendezvous"
    """No rank lives: the store and agents start and meet."""
    START = "ranks start"
    """Ranks live and have not taken a generation."""
    LOAD = "load"
    """A generation is taken; the state is being read."""
    STEP = "step"
    EVALUATE = "evaluation"
    STAGING = "save: no pack yet"
    PACKS_HALF = "save: packs half written"
    PACKS_WHOLE = "save: packs whole, no manifest"
    MANIFEST = "save: manifest half written"
    COMMITTED = "save: manifest just written"
    RETENTION = "save: old ones being removed"
    END = "after the last step"


RECOVERY = (Stage.LEAVING, Stage.RENDEZVOUS, Stage.START, Stage.LOAD)
"""Stages that follow a loss."""


@dataclass(frozen=True)
class Rhythm:
    """When a run saves and evaluates, in steps."""

    steps: int
    save_every: int
    evaluate_every: int


@dataclass(frozen=True)
class Sight:
    """One look at a run. Steps are finished ones; those named so are of the newest generation.

    `waiting`: no generation was taken since the last strike. `survivors` are living ranks that it met,
    `ranks` are living ones that came after it. `world` is None until rank 0 has said that it begins. `packs`
    holds the sizes by folder of all checkpoints that have one; `still` names those whose sizes were the same
    at the look before.
    """

    waiting: bool = False
    survivors: int = 0
    ranks: int = 0
    generation: int = 0
    world: int | None = None
    resumed: int = 0
    step: int = 0
    furthest: int = 0
    """Greatest step that any generation has done."""
    evaluated: int = 0
    saved: int = 0
    """Step of the last save that has ended in this generation."""
    packs: Mapping[CheckpointName, tuple[int, ...]] = field(default_factory=dict)
    still: frozenset[CheckpointName] = frozenset()
    manifests: frozenset[CheckpointName] = frozenset()
    partials: frozenset[CheckpointName] = frozenset()
    removing: bool = False
    """Manifests or folders of packs have just gone."""


def stage_of(s: Sight, rhythm: Rhythm) -> Stage:
    """The stage of a run that looks so."""
    if s.waiting:
        if s.survivors:
            return Stage.LEAVING
        return Stage.START if s.ranks else Stage.RENDEZVOUS
    if s.world is None:
        return Stage.LOAD
    if s.step >= rhythm.steps:
        return Stage.END
    evaluation = s.step - s.step % rhythm.evaluate_every
    saving = _saving(s, s.world)
    if saving is not None:
        return saving
    if evaluation == s.step and s.step > max(s.resumed, s.evaluated):
        return Stage.EVALUATE
    due = s.step - s.step % rhythm.save_every
    begun = any(n.generation.number == s.generation and n.step >= due for n in (*s.packs, *s.manifests))
    if due > max(s.resumed, s.saved) and not begun:
        return Stage.STAGING
    return Stage.STEP


def _saving(s: Sight, world: int) -> Stage | None:
    """Where the save under way is; None if none has a pack yet, or its end was told."""
    mine = [n for n in (*s.packs, *s.manifests) if n.generation.number == s.generation]
    if not mine:
        return None
    newest = max(mine, key=lambda n: n.number)
    if newest not in s.manifests:
        if newest in s.partials:
            return Stage.MANIFEST
        whole = len(s.packs[newest]) == world and newest in s.still
        return Stage.PACKS_WHOLE if whole else Stage.PACKS_HALF
    if s.removing:
        return Stage.RETENTION  # a save that goes on beside the training may have told of its commit already
    return Stage.COMMITTED if newest.step > s.saved else None
