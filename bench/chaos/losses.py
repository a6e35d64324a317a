"""What each loss cost a run, and whether it was more than the steps since the last save.

Every generation must go on at least from the greatest step that an earlier one had saved. A save counts when
it was acknowledged: its generation has recorded it as done, its manifest was seen (watch.py) while no later
generation was there, or another generation went on from it. Each time a later generation's listing shows it.
A record is one write(2), so SIGKILL takes none that was written; a manifest that nobody saw before its writer
was killed binds nobody. A generation that never said where it goes on from, nor did a step, was killed before
that and has lost nothing. Which world has which size does not matter here.

Not here: whether the run came out equal (judge.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from aurl_trainer.contract import RunFile
from aurl_trainer.monitor.records import read_records
from aurl_trainer.store.format.names import CheckpointName, Fence
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from bench.chaos.campaign import Struck


@dataclass(frozen=True)
class Life:
    """One generation: the step it went on from, the last that it did, the last whose save it acknowledged.

    `resumed` is the least that anything tells: the store, any rank, or the first step that was done.
    """

    generation: int
    resumed: int
    reached: int
    saved: int = 0


@dataclass
class _Told:
    """What is told of one generation."""

    resumed: list[int] = field(default_factory=list)
    first: dict[int, int] = field(default_factory=dict)
    """By rank, the first step that it did."""
    reached: int = 0
    saved: int = 0

    @property
    def begun(self) -> int | None:
        """The step it went on from; None: that is told nowhere."""
        return min([*self.resumed, *(step - 1 for step in self.first.values())], default=None)


def lives(run: Path) -> list[Life]:
    """The generations of a run, as its records and the place of its checkpoints tell of them."""
    fences = RunStore(Location(str(run / RunFile.CHECKPOINTS))).fences()
    return lived(read_records(run / RunFile.RECORDS, ("start", "audit", "save")), fences)


def lived(records: Iterable[Mapping[str, Any]], fences: Iterable[Fence]) -> list[Life]:
    """Those generations that have gone on from somewhere, in order."""
    told: dict[int, _Told] = {}
    for fence in fences:
        if fence.settled:
            resumed = 0 if fence.resumed is None else fence.resumed.step
            told.setdefault(fence.id.number, _Told()).resumed.append(resumed)
    for record in records:
        found = told.setdefault(record["generation"], _Told())
        if record["kind"] == "start":
            found.resumed.append(record["resumed_from"] or 0)
        elif record["kind"] == "audit":
            found.first.setdefault(record["rank"], record["step"])
            found.reached = max(found.reached, record["step"])
        elif record["ok"]:
            found.saved = max(found.saved, record["step"])
    return [
        Life(number, begun, max(begun, t.reached), t.saved)
        for number, t in sorted(told.items())
        if (begun := t.begun) is not None
    ]


def forgotten(found: Sequence[Life], seen: Iterable[CheckpointName] = ()) -> list[str]:
    """One line for each generation that went on from before a save that earlier ones had acknowledged.

    `seen` are the checkpoints whose manifest was seen before any later generation was there.
    """
    saved: dict[int, int] = {life.generation: life.saved for life in found}
    for name in seen:
        number = name.generation.number
        saved[number] = max(name.step, saved.get(number, 0))
    lines = []
    known, by, after = 0, 0, 0
    for life in found:
        # Generations without a life of their own may have been seen to save.
        for number in sorted(n for n in saved if after <= n < life.generation):
            if saved[number] > known:
                known, by = saved[number], number
        if life.resumed < known:
            lines.append(
                f"generation {life.generation} went on from step {life.resumed}, although generation {by} "
                f"had saved step {known}"
            )
        # Whoever comes next builds on this one: what is lost is told once.
        known, by, after = life.resumed, life.generation, life.generation
    return lines


def steps_again(found: Sequence[Life]) -> dict[int, int]:
    """How many steps of each generation the next one had to do again, by the generation that was lost."""
    return {lost.generation: max(0, lost.reached - after.resumed) for lost, after in pairwise(found)}


def charged(struck: Iterable[Struck], found: Sequence[Life]) -> Iterator[Struck]:
    """The kills of a run with the steps that each cost: the first in a generation is what ended it."""
    again = steps_again(found)
    for kill in struck:
        yield replace(kill, again=again.pop(kill.generation, None))
