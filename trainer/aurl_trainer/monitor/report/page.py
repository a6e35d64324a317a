"""One HTML file from a run: figures and charts put into the templates.

The page is one file without a request to anywhere: styles, scripts, sound and MIDI are in it, and its
Content-Security-Policy allows its own two inline blocks by their hashes and nothing else. Whatever comes
from a run is escaped by Jinja2. Not here: any computation about the run (figures.py, plots.py, music.py).
"""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from aurl_trainer.monitor.report import plots, story, words
from aurl_trainer.monitor.report.charts import Chart, seconds_axis
from aurl_trainer.monitor.report.figures import Figures
from aurl_trainer.monitor.report.lineage import surviving
from aurl_trainer.monitor.report.music import Piece, note_name
from aurl_trainer.monitor.report.source import Run, log_tails

_PHASES = {"Succeeded": "good", "Failed": "bad"}
_BLACK = frozenset({1, 3, 6, 8, 10})
_SHARES = {
    "steps in the result": "share-good",
    "evaluation": "share-evaluation",
    "saving checkpoints": "share-saving",
    "first start": "share-start",
    "sampling and the rest": "share-other",
}


def render(run: Run, facts: Figures, pieces: Sequence[Piece], written_at: float | None = None) -> str:
    """The whole page. `written_at` is seconds since the epoch; default: now."""
    environment = Environment(
        loader=PackageLoader("aurl_trainer.monitor.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _asset(environment, "style.css"), _asset(environment, "charts.js", "player.js")
    origin = facts.started_at or 0.0
    axis = seconds_axis(facts.wall_seconds)
    loss, small = plots.loss_chart(run, facts), plots.small_charts(facts)
    over_time = plots.time_chart(facts, origin, axis)
    drawn = [c for c in (loss, *small, over_time) if c is not None]
    context: dict[str, Any] = {
        "style": style,
        "style_hash": _hash(style),
        "script": script,
        "script_hash": _hash(script),
        "version": version("aurl"),
        "written": words.moment(time.time() if written_at is None else written_at),
        "folder": str(run.folder.resolve()),
        "name": run.name,
        "phase": facts.phase,
        "phase_style": _PHASES.get(facts.phase, "going"),
        "started": words.moment(facts.started_at) if facts.started_at is not None else "",
        "took": words.duration(facts.wall_seconds),
        "paragraphs": story.paragraphs(run, facts),
        "tiles": _tiles(facts),
        "loss": loss,
        "small": small,
        "restarted": len(facts.lineage) > 1,
        "redone": facts.steps_redone > 0,
        "evaluations": _evaluations(run, facts),
        "time": over_time,
        "time_axis": axis,
        "lanes": plots.lanes(facts, origin, axis),
        "bands": plots.bands(facts, origin, axis),
        "incidents": _incidents(facts, origin),
        "generations": _generations(facts, origin),
        "failed_saves": list(dict.fromkeys((r["step"], r["message"]) for r in run.of("save") if not r["ok"])),
        "pieces": [_piece(p) for p in pieces],
        "music_hint": _music_hint(pieces),
        "facts": _facts(run),
        "job": run.job_text,
        "resolved": _resolved(run),
        "rejected": run.setup.get("rejected") or [],
        "rejected_title": _rejected_title(run),
        "logs": log_tails(run.folder) if facts.phase != "Succeeded" else [],
        "data": {
            "charts": {c.id: _chart_data(c) for c in drawn},
            "pieces": {
                str(number): {"seconds": p.seconds, "notes": p.notes}
                for number, p in enumerate(pieces, 1)
                if p.notes
            },
        },
        **_goodput(facts),
    }
    context["sections"] = _sections(context)
    return environment.get_template("report.html.j2").render(context)


def _asset(environment: Environment, *names: str) -> Markup:
    """Own style sheets or scripts, as they are."""
    assert environment.loader is not None
    return Markup("".join(environment.loader.get_source(environment, name)[0] for name in names))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _sections(context: dict[str, Any]) -> list[tuple[str, str]]:
    titles = [("learning", "Learning"), ("happened", "What happened"), ("goodput", "Goodput")]
    titles += [("music", "Music"), ("logs", "Logs"), ("setup", "Configuration")]
    there = {"goodput": bool(context["shares"]), "logs": bool(context["logs"])}
    return [(id_, title) for id_, title in titles if there.get(id_, True)]


def _tiles(facts: Figures) -> list[dict[str, str]]:
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
    tiles.append(tile("Steps", f"{facts.step:,}", of, redone or f"{words.count(facts.tokens)} tokens"))
    where = words.plural(facts.most_ranks, "rank")
    if facts.most_nodes:
        where = f"{words.plural(facts.most_nodes, 'node')}, {where}"
    tiles.append(tile("Wall time", words.duration(facts.wall_seconds), note=where))
    if facts.goodput.ratio is not None:
        lost = facts.goodput.lost_seconds
        note = f"{words.duration(lost)} lost to incidents" if lost else "nothing lost"
        tiles.append(tile("Goodput", f"{100 * facts.goodput.ratio:.0f} %", note=note))
    recovery = facts.slowest_recovery
    note = f"slowest recovery {words.duration(recovery)}" if recovery is not None else ""
    tiles.append(tile("Incidents", str(len(facts.incidents)), note=note))
    return tiles


def _evaluations(run: Run, facts: Figures) -> list[dict[str, str]]:
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


def _incidents(facts: Figures, origin: float) -> list[dict[str, Any]]:
    def seconds(value: float | None, missing: str) -> str:
        return words.duration(value) if value is not None else missing

    return [
        {
            "at": words.clock(i.at - origin),
            "style": plots.style_of(i.cause),
            "cause": words.cause(i.cause),
            "nodes": ", ".join(i.nodes),
            "step": f"{i.step:,}" if i.step is not None else "",
            "recovery": seconds(i.recovery_seconds, "not seen"),
            "redone": f"{i.steps_redone:,}" if i.steps_redone is not None else "",
            "lost": seconds(i.lost_seconds, ""),
            "message": i.message,
            "traceback": i.traceback or "",
        }
        for i in facts.incidents
    ]


def _generations(facts: Figures, origin: float) -> list[dict[str, Any]]:
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


def _goodput(facts: Figures) -> dict[str, Any]:
    total, at, rows = facts.goodput.total_seconds, 0.0, []
    for share in facts.goodput.shares:
        width = 100 * share.seconds / total
        rows.append(
            {
                "name": words.cause(share.name) if share.lost else share.name,
                "style": plots.style_of(share.name) if share.lost else _SHARES[share.name],
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


def _piece(piece: Piece) -> dict[str, Any]:
    low, high, length = piece.lowest, piece.highest, piece.seconds or 1.0
    keys = high - low
    facts = [f"after step {piece.step:,}"] if piece.step is not None else []
    if piece.notes:
        facts += [f"{len(piece.notes):,} notes", words.duration(length)]
    return {
        "name": piece.name,
        "problem": piece.problem,
        "midi": piece.midi,
        "sound": piece.sound,
        "facts": " · ".join(facts),
        "seconds": round(length, 2),
        "length": words.clock(length),
        "height": min(280, max(110, 5 * keys)),
        "width": round(14 * length),
        "key_height": round(100 / keys, 3),
        "black_keys": [round(100 * (high - 1 - k) / keys, 3) for k in range(low, high) if k % 12 in _BLACK],
        "octaves": [
            {"at": round(100 * (high - k) / keys, 3), "label": note_name(k)}
            for k in range(low, high)
            if k % 12 == 0
        ],
        "rects": [
            {
                "x": round(100 * start / length, 3),
                "y": round(100 * (high - 1 - pitch) / keys, 3),
                "width": max(0.12, round(100 * duration / length - 0.06, 3)),
                "opacity": round(0.45 + 0.55 * min(velocity, 100) / 100, 2),
                "voice": track % 6,
            }
            for start, duration, pitch, velocity, track in piece.notes
        ],
    }


def _music_hint(pieces: Sequence[Piece]) -> str:
    silent = sum(1 for p in pieces if not p.problem and not p.sound)
    text = "Time runs to the right, pitch upwards. A click into a roll plays from there."
    if silent:
        text += (
            f" {words.plural(silent, 'piece')} came without sound: "
            "this page plays the notes with a plain synthesizer of its own."
        )
    return text


def _facts(run: Run) -> list[tuple[str, str]]:
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


def _resolved(run: Run) -> str:
    if "preset" not in run.experiment:
        return ""
    return yaml.safe_dump(story.experiment(run), sort_keys=False, allow_unicode=True)


def _rejected_title(run: Run) -> str:
    shown = len(run.setup.get("rejected") or [])
    total = max(shown, run.setup.get("rejected_total") or 0)
    more = f" (the first {shown:,} are listed)" if total > shown else ""
    return f"{words.plural(total, 'file')} could not be used{more}"


def _chart_data(chart: Chart) -> dict[str, Any]:
    def digits(values: Sequence[float | None]) -> list[float | None]:
        return [None if v is None else float(f"{v:.6g}") for v in values]

    longest = max((len(c.points) for c in chart.curves), default=1)
    return {
        "low": chart.x.low,
        "high": chart.x.high,
        "bottom": chart.y.low,
        "top": chart.y.high,
        "digits": chart.digits,
        "xName": chart.x_name,
        "curves": [
            {
                "name": c.name,
                "style": c.style,
                "x": digits(c.points.x),
                "y": digits(c.points.y),
                # A sparse curve answers from farther away.
                "reach": 0.5 if len(c.points) * 8 < longest and c.style == "validation" else 0.02,
            }
            for c in chart.curves
            if c.style != "redone"
        ],
    }
