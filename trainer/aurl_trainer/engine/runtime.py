"""What surrounds the loop: the world, beats, records, progress, checkpoints, sampling. All of it optional.

Here: the few methods the loop needs of each, and stand-ins that do nothing, so that a notebook can train
with a model, a loss and a data set alone. Not here: the real ones (survival/, `monitor/`, `checkpoint/`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from aurl_trainer.contract import Phase, Progress
from aurl_trainer.engine.parallel import World
from aurl_trainer.engine.resume.past import Past
from aurl_trainer.engine.survival.preemption import Notice


class Beats(Protocol):
    """The heartbeat, as the loop sees it."""

    @property
    def regroup_requested(self) -> bool:
        """Whether a node waits to join."""

    def phase(self, phase: Phase, step: int) -> None:
        """This rank now does `phase` of `step`."""


class Records(Protocol):
    """Where steps, evaluations and saves are written down."""

    def write(self, kind: str, **fields: Any) -> None:
        """Add one record."""


class ProgressSink(Protocol):
    """Who answers how far the run is."""

    def update(self, progress: Progress) -> None:
        """The newest state of this rank."""


class _NoBeats:
    regroup_requested = False

    def phase(self, phase: Phase, step: int) -> None:
        """Nobody listens."""


class _NoRecords:
    def write(self, kind: str, **fields: Any) -> None:
        """Nobody reads."""


class _NoProgress:
    def update(self, progress: Progress) -> None:
        """Nobody asks."""


@dataclass(frozen=True)
class Music:
    """Music that a model has written. `write` makes files of it, which takes long, and gives their names."""

    metrics: Mapping[str, float]
    write: Callable[[], list[str]]


@dataclass(frozen=True)
class Runtime:
    """What one rank's loop runs in. `sample(model, step)` is called on rank 0, with the
    weights that the run is judged by."""

    world: World = field(default_factory=World.alone)
    beats: Beats = field(default_factory=_NoBeats)
    open_records: Callable[[int], Records] = lambda generation: _NoRecords()
    """Called once with the generation that the run has taken."""
    progress: ProgressSink = field(default_factory=_NoProgress)
    notice: Notice = field(default_factory=Notice)
    past: Callable[[int], Past] = lambda generation: Past()
    """What generations before this one have written down; called in a thread, on rank 0 only."""
    surroundings: Mapping[str, str] = field(default_factory=dict)
    """What else decides the bits of a loss: versions, threads, device."""
    sample: Callable[[nn.Module, int], Music] | None = None
    say: Callable[[str], None] = print
    """Takes a line for the log; called on rank 0 only."""
