"""Figures as texts: the tiles, and the rows of the page's tables.

Not here: sentences (story.py), charts (plots.py, lanes.py), pieces of music (rolls.py).
"""

from __future__ import annotations

import math
from typing import Any

from aurl_trainer.monitor.report.figures import Figures
from aurl_trainer.monitor.report.lineage import surviving
from aurl_trainer.monitor.report.page import words
from aurl_trainer.monitor.report.page.lanes import style_of
from aurl_trainer.monitor.report.source import Run

SHARES = {
    "steps in the result": "share-good",
    "evaluation": "share-evaluation",
    "saving checkpoints": "share-saving",
    "first start": "share-start",
    "sampling and the rest": "share-other",
}


def tiles(facts: Figures) -> list[dict[str, str]]:
    """Name, value, unit and note of each large number."""

    def tile(name: str, value: str, unit: str = "", note: str = "") -> dict[str, str]:
        return {"name": name, "value": value, "unit": unit, "note": note}

    tiles = []
    if facts.val_loss is not None:
        gain = f"{abs(facts.markov2 - facts.val_loss):.3f}" if facts.markov2 is not None else ""
        beats = facts.markov2 is not None and facts.val_loss < facts.markov2
        note = f"{gain} {'below' if beats else 'above'} order-2 Markov" if gain else ""
        tiles.append(tile("Validation loss", f"{facts.val_loss:.3f}", "nats", note))
    of = f"of {facts.total_steps:,}" if facts.step != facts.total_steps else ""
    redone = f"{words.plural(facts.steps_redone, 'step')} done twice" if facts.steps_redone else ""
    if facts.lineage:
        tiles.append(tile("Steps", f"{facts.step:,}", of, redone or f"{words.count(facts.tokens)} tokens"))
    counted = [(facts.most_nodes, "node"), (facts.most_ranks, "rank")]
    where = ", ".join(words.plural(number, noun) for number, noun in counted if number)
    tiles.append(tile("Wall time", words.duration(facts.wall_seconds), note=where))
    if facts.goodput.ratio is not None:
        lost = facts.goodput.lost_seconds
        note = f"{words.duration(lost)} lost to incidents" if lost else "nothing lost"
        tiles.append(tile("Goodput", f"{100 * facts.goodput.ratio:.0f} %", note=note))
    recovery = facts.slowest_recovery
    note = f"slowest recovery {words.duration(recovery)}" if recovery is not None else ""
    tiles.append(tile("Incidents", str(len(facts.incidents)), note=note))
    return tiles


def evaluations(run: Run, facts: Figures) -> list[dict[str, str]]:
    """The newest 500 validations that are in the result, by step."""
    rows = [r for r in surviving(run, facts.lineage, "evaluation") if r["val_loss"] is not None]
    return [
        {
            "step": f"{r['step']:,}",
            "loss": f"{r['val_loss']:.4f}",
            "perplexity": f"{math.exp(min(r['val_loss'], 50.0)):,.2f}",
            "tokens": f"{r['tokens']:,}",
        }
        for r in rows[-500:]
    ]


def incidents(facts: Figures, origin: float) -> list[dict[str, Any]]:
    """A row for each incident. `origin` is when the run started, seconds since the epoch."""

    def seconds(value: float | None, missing: str) -> str:
        return words.duration(value) if value is not None else missing

    return [
        {
            "at": words.clock(i.at - origin),
            "style": style_of(i.cause),
            "cause": words.cause(i.cause),
            "nodes": ", ".join(i.nodes),
            "step": f"{i.step:,}" if i.step is not None else "",
            "recovery": seconds(i.recovery_seconds, "" if i.noticed else "not seen"),
            "redone": f"{i.steps_redone:,}" if i.steps_redone is not None else "",
            "lost": seconds(i.lost_seconds, ""),
            "message": i.message,
            "traceback": i.traceback or "",
        }
        for i in facts.incidents
    ]


def generations(facts: Figures, origin: float) -> list[dict[str, Any]]:
    """A row for each generation. `origin` is when the run started, seconds since the epoch."""
    return [
        {
            "number": g.number,
            "at": words.clock(g.at - origin),
            "lasted": words.duration(g.until - g.at),
            "world": g.world,
            "nodes": ", ".join(g.nodes),
            "first": f"{g.resumed_from:,}",
            "last": f"{(*g.kept, *g.redone)[-1]['step']:,}" if g.kept or g.redone else "",
            "redone": len(g.redone) or "",
            "reason": g.end_reason or "",
            "checkpoint": g.checkpoint or "",
        }
        for g in facts.lineage
    ]


def goodput(facts: Figures) -> dict[str, Any]:
    """The shares of the time as rows and, in percent, as parts of one bar; with the totals in words."""
    total, at, rows = facts.goodput.total_seconds, 0.0, []
    for share in facts.goodput.shares:
        width = 100 * share.seconds / total
        rows.append(
            {
                "name": words.cause(share.name) if share.lost else share.name,
                "style": style_of(share.name) if share.lost else SHARES[share.name],
                "lost": share.lost,
                "at": round(at, 3),
                "width": round(width, 3),
                "time": words.duration(share.seconds),
                "percent": f"{width:.1f} %",
            }
        )
        at += width
    lost = facts.goodput.lost_seconds
    return {
        "shares": rows,
        "ratio": f"{100 * (facts.goodput.ratio or 0):.0f} %",
        "total": words.duration(total),
        "lost": words.duration(lost) if lost else "",
    }


def facts(run: Run) -> list[tuple[str, str]]:
    """Name and value of what was trained on what."""
    setup = run.setup
    named = (
        ("Parameters", "parameters"),
        ("Vocabulary", "vocabulary"),
        ("Training pieces", "train_pieces"),
        ("Validation pieces", "validation_pieces"),
        ("Training samples", "train_samples"),
        ("Validation samples", "validation_samples"),
    )
    found = [(title, f"{setup[key]:,}") for title, key in named if setup.get(key) is not None]
    versions = setup.get("versions")
    if isinstance(versions, dict):
        found += [(str(name), str(value)) for name, value in versions.items()]
    return found


def rejected_title(run: Run) -> str:
    """How many files could not be used, and how many of them are named."""
    shown = len(run.setup.get("rejected") or [])
    total = max(shown, run.setup.get("rejected_total") or 0)
    more = f" (the first {shown:,} are listed)" if total > shown else ""
    return f"{words.plural(total, 'file')} could not be used{more}"
