"""The figures of a run: what `aurl report --json` prints and the page's summary is told from.

Everything is computed here and only here; the page adds words and geometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aurl_trainer.monitor.report.goodput import Goodput, goodput
from aurl_trainer.monitor.report.lineage import Generation, generations, surviving
from aurl_trainer.monitor.report.resumes import Resumed, resumes
from aurl_trainer.monitor.report.source import Record, Run
from aurl_trainer.monitor.report.timeline import Attempt, Incident, attempts, incidents

UNFINISHED = "Unfinished"
"""Phase of a run of which no ledger says how it stands."""


@dataclass(frozen=True)
class Figures:
    """What a run came to. Losses are nats per token over the validation targets; times are seconds."""

    phase: str
    message: str
    started_at: float | None
    last_sign_at: float | None
    step: int
    total_steps: int
    most_nodes: int
    """In one generation; if none was formed, at one time."""
    most_ranks: int
    val_loss: float | None
    best_val_loss: float | None
    unigram: float | None
    markov2: float | None
    tokens: int
    lineage: tuple[Generation, ...]
    attempts: tuple[Attempt, ...]
    incidents: tuple[Incident, ...]
    resumes: tuple[Resumed, ...]
    goodput: Goodput

    @property
    def wall_seconds(self) -> float:
        """From the first to the last sign of life."""
        if self.started_at is None or self.last_sign_at is None:
            return 0.0
        return self.last_sign_at - self.started_at

    @property
    def steps_redone(self) -> int:
        """Steps that were done again."""
        return sum(len(g.redone) for g in self.lineage)

    @property
    def steps_repeated(self) -> int:
        """Steps that were done again, are in the result, and had the same loss to the last bit."""
        result = {r["step"]: r["loss"] for g in self.lineage for r in g.kept}
        first_time = {r["step"]: r["loss"] for g in self.lineage for r in g.redone}
        return sum(1 for step, loss in first_time.items() if loss is not None and result.get(step) == loss)

    @property
    def slowest_recovery(self) -> float | None:
        """Longest time from a loss to the next finished step; None: nothing recovered."""
        known = [i.recovery_seconds for i in self.incidents if i.recovery_seconds is not None]
        return max(known, default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain figures for scripts."""
        return {
            "phase": self.phase,
            "step": self.step,
            "total_steps": self.total_steps,
            "wall_seconds": self.wall_seconds,
            "nodes": self.most_nodes,
            "ranks": self.most_ranks,
            "generations": len(self.lineage),
            "tokens": self.tokens,
            "val_loss": self.val_loss,
            "best_val_loss": self.best_val_loss,
            "baselines": {"unigram": self.unigram, "markov2": self.markov2},
            "goodput": self.goodput.ratio,
            "productive_seconds": self.goodput.productive_seconds,
            "lost_seconds": {s.name: s.seconds for s in self.goodput.shares if s.lost},
            "steps_redone": self.steps_redone,
            "steps_repeated": self.steps_repeated,
            "incidents": [
                {
                    "cause": i.cause,
                    "nodes": list(i.nodes),
                    "at": i.at,
                    "step": i.step,
                    "recovery_seconds": i.recovery_seconds,
                    "lost_seconds": i.lost_seconds,
                    "steps_redone": i.steps_redone,
                    "message": i.message,
                }
                for i in self.incidents
            ],
            "resumes": [r.to_json() for r in self.resumes],
        }


def figures(run: Run) -> Figures:
    """Works out everything about a run that has numbers."""
    lineage = generations(run)
    happened = incidents(run)
    bars = attempts(run, lineage)
    evaluations = [r for r in surviving(run, lineage, "evaluation") if r["val_loss"] is not None]
    baselines = _last(list(run.of("baselines")))
    phases = [e for e in run.ledger if e.kind == "phase" and e.phase]
    times = [r["at"] for r in run.records] + [e.at for e in run.ledger]
    result = baselines.get("val_loss")
    finished = bool(lineage) and lineage[-1].end_reason == "finished"
    return Figures(
        phase=(phases[-1].phase if phases else None) or ("Succeeded" if finished else UNFINISHED),
        message=phases[-1].message if phases else "",
        started_at=min(times, default=None),
        last_sign_at=max(times, default=None),
        step=max((_reached(g) for g in lineage if g.cut is None), default=0),
        total_steps=lineage[-1].total_steps if lineage else 0,
        most_nodes=max((len(g.nodes) for g in lineage), default=0)
        or _together([b for b in bars if b.trains]),
        most_ranks=max((g.world for g in lineage), default=0),
        val_loss=result if result is not None else _last(evaluations).get("val_loss"),
        best_val_loss=min((r["val_loss"] for r in evaluations), default=None),
        unigram=baselines.get("unigram"),
        markov2=baselines.get("markov2"),
        tokens=sum(r["tokens"] for g in lineage for r in g.kept),
        lineage=lineage,
        attempts=bars,
        incidents=happened,
        resumes=resumes(run),
        goodput=goodput(run, lineage, happened),
    )


def _reached(generation: Generation) -> int:
    return max([generation.resumed_from, *(int(r["step"]) for r in generation.kept)])


def _together(bars: Sequence[Attempt]) -> int:
    """Most nodes that were there at one time."""
    events = sorted(
        [(b.start, 1) for b in bars] + [(b.end, -1) for b in bars if b.end is not None],
        key=lambda e: (e[0], e[1]),
    )
    now = most = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


def _last(records: Sequence[Record]) -> Record:
    return records[-1] if records else {}
