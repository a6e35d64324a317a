"""Which checkpoints stay. Pure: names, times and metrics in, names out.

Each rule keeps some, and what any rule keeps stays. A checkpoint goes only if no rule kept it `grace_seconds`
ago either: whoever chose it then has had that long to read it. Rules are stable: what is removed changes
nothing for those that stay. Not here: what can be removed safely (plan.py), removing it (passes.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aurl_trainer.store.format.names import CheckpointName, Fence, not_void

if TYPE_CHECKING:
    from aurl_trainer.config.checkpoint import KeepConfig


@dataclass(frozen=True)
class Committed:
    """One checkpoint as retention sees it. `at` None: its manifest is damaged."""

    name: CheckpointName
    at: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    folders: frozenset[str] = frozenset()
    """Of the packs that it refers to, as `CheckpointName.folder`."""
    tagged: bool = False
    aside: bool = False


def rating(metrics: Mapping[str, float | None], by: Mapping[str, float]) -> float | None:
    """The weighted sum of metrics, lower is better; None if one of them is missing or not finite."""
    total = 0.0
    for name, weight in by.items():
        value = metrics.get(name)
        if value is None:
            return None
        total += weight * value
    return total if math.isfinite(total) else None


def best_first(checkpoints: Iterable[Committed], by: Mapping[str, float]) -> list[Committed]:
    """Those that can be rated, the best first; among equals the later first."""
    rated = [(value, c) for c in checkpoints if (value := rating(c.metrics, by)) is not None]
    rated.sort(key=lambda pair: pair[1].name.age, reverse=True)
    rated.sort(key=lambda pair: pair[0])
    return [c for _, c in rated]


def chosen(checkpoints: Iterable[Committed], keep: KeepConfig) -> set[CheckpointName]:
    """What the rules keep of `checkpoints`, which all count."""
    every = sorted(checkpoints, key=lambda c: c.name.age)
    stay = {c.name for c in every[-keep.latest :]}
    stay |= {c.name for c in best_first(every, keep.by)[: keep.best]}
    windows: dict[tuple[str, int], CheckpointName] = {}
    for c in every:
        # The first save in a window stands for it: no later save can take its place.
        if keep.every_steps and c.name.step >= keep.every_steps:
            windows.setdefault(("step", c.name.step // keep.every_steps), c.name)
        if keep.every_minutes and c.at is not None:
            windows.setdefault(("minute", int(c.at // (60 * keep.every_minutes))), c.name)
    return stay | set(windows.values())


def kept(
    checkpoints: Sequence[Committed], fences: Sequence[Fence], keep: KeepConfig, now: float
) -> set[CheckpointName]:
    """The names of those that stay at `now`, seconds since the epoch.

    Tagged ones and those set aside always do. Of the others only those that count are given to the rules;
    one that is void stays as long as the grace since it was saved.
    """
    since = now - keep.grace_seconds
    history = set(not_void([c.name for c in checkpoints], fences))
    counting = [c for c in checkpoints if not c.aside and c.name in history]
    stay = {c.name for c in checkpoints if c.tagged or c.aside}
    stay |= {c.name for c in checkpoints if c.at is not None and c.at > since}
    stay |= chosen(counting, keep)
    # One whose age is unknown is taken for old.
    return stay | chosen([c for c in counting if c.at is None or c.at <= since], keep)
