"""Which steps are in the result: the surviving lineage of a run that was restarted.

A generation that resumes from step r makes every step beyond r of the generations before it void, whether
or not it got any further itself. What survives of generation g is therefore its steps up to the lowest step
that a later generation resumed from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aurl_trainer.monitor.report.source import Record, Run


@dataclass(frozen=True)
class Generation:
    """One formed world. `at` and `until` are seconds since the epoch of its first and last record.

    `kept` steps are in the result, `redone` ones were done again later; both are `step` records in order.
    `cut` is the last step of this generation that can be in the result, None if nothing cuts it.
    """

    number: int
    world: int
    nodes: tuple[str, ...]
    resumed_from: int
    checkpoint: str | None
    total_steps: int
    at: float
    until: float
    kept: tuple[Record, ...] = ()
    redone: tuple[Record, ...] = ()
    cut: int | None = None
    end_reason: str | None = None

    def keeps(self, step: int) -> bool:
        """Whether what happened after `step` in this generation is in the result."""
        return self.cut is None or step <= self.cut

    @property
    def first_step(self) -> Record | None:
        """The earliest step record, kept or not."""
        steps = (*self.kept, *self.redone)
        return steps[0] if steps else None


def generations(run: Run) -> tuple[Generation, ...]:
    """Every generation that left records, oldest first."""
    by_number: dict[int, list[Record]] = {}
    for record in run.records:
        by_number.setdefault(record["generation"], []).append(record)
    found: list[Generation] = []
    cut: int | None = None
    for number in sorted(by_number, reverse=True):
        generation = _generation(number, by_number[number], cut)
        found.append(generation)
        if any(r["kind"] == "start" for r in by_number[number]):
            resumed = generation.resumed_from
            cut = resumed if cut is None else min(cut, resumed)
    return tuple(reversed(found))


def _generation(number: int, records: Sequence[Record], cut: int | None) -> Generation:
    starts = [r for r in records if r["kind"] == "start"]
    steps = _unique(r for r in records if r["kind"] == "step")
    first = starts[0] if starts else {}
    ends = [r["reason"] for r in records if r["kind"] == "end" and r["rank"] == 0]
    return Generation(
        number=number,
        world=first.get("world") or 1 + max(r["rank"] for r in records),
        nodes=tuple(sorted({str(r["node"]) for r in starts if r.get("node")})),
        resumed_from=first.get("resumed_from") or 0,
        checkpoint=first.get("checkpoint"),
        total_steps=first.get("total_steps") or 0,
        at=records[0]["at"],
        until=records[-1]["at"],
        kept=tuple(r for r in steps if cut is None or r["step"] <= cut),
        redone=tuple(r for r in steps if cut is not None and r["step"] > cut),
        cut=cut,
        end_reason=str(ends[-1]) if ends else None,
    )


def _unique(steps: Iterable[Record]) -> list[Record]:
    """Steps in order, the later record where one was written twice."""
    return [r for _, r in sorted({r["step"]: r for r in steps}.items())]


def surviving(run: Run, lineage: Sequence[Generation], kind: str) -> list[Record]:
    """Records of one kind whose `step` is in the result, by step and time."""
    by_number = {g.number: g for g in lineage}
    return sorted(
        (r for r in run.of(kind) if by_number[r["generation"]].keeps(r["step"])), key=lambda r: r["step"]
    )
