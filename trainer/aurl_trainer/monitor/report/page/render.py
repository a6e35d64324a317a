"""One HTML file from a run: figures and charts put into the templates.

The page is one file without a request to anywhere: styles, scripts, sound and MIDI are in it, and its
Content-Security-Policy allows its own two inline blocks by their hashes and nothing else. Whatever comes
from a run is escaped by Jinja2. Not here: any computation about the run (the folder above), and what each
part shows (the other files here).
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from aurl_trainer.monitor.report.figures import Figures
from aurl_trainer.monitor.report.music import Piece
from aurl_trainer.monitor.report.page import certificates, lanes, plots, rolls, story, tables, words
from aurl_trainer.monitor.report.page.charts import seconds_axis
from aurl_trainer.monitor.report.source import Run, log_tails

_PHASES = {"Succeeded": "good", "Failed": "bad"}


def render(run: Run, facts: Figures, pieces: Sequence[Piece], written_at: float | None = None) -> str:
    """The whole page. `written_at` is seconds since the epoch; default: now."""
    environment = Environment(
        loader=PackageLoader("aurl_trainer.monitor.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _asset(environment, "style.css"), _asset(environment, "charts.js", "player.js")
    origin = facts.started_at or 0.0
    axis = seconds_axis(facts.wall_seconds)
    loss, small = plots.loss_chart(run, facts), plots.small_charts(facts)
    over_time = lanes.time_chart(facts, origin, axis)
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
        "foreign": run.foreign,
        "phase": facts.phase,
        "phase_style": _PHASES.get(facts.phase, "going"),
        "started": words.moment(facts.started_at) if facts.started_at is not None else "",
        "took": words.duration(facts.wall_seconds),
        "paragraphs": story.paragraphs(run, facts),
        "tiles": tables.tiles(facts),
        "loss": loss,
        "small": small,
        "restarted": len(facts.lineage) > 1,
        "redone": facts.steps_redone > 0,
        "evaluations": tables.evaluations(run, facts),
        "time": over_time,
        "time_axis": axis,
        "lanes": lanes.lanes(facts, origin, axis),
        "bands": lanes.bands(facts, origin, axis),
        "incidents": tables.incidents(facts, origin),
        "generations": tables.generations(facts, origin),
        "resumes": certificates.rows(facts.resumes, origin),
        "failed_saves": list(
            dict.fromkeys(
                (r["step"], r["message"]) for r in run.of("save") if not r["ok"] and not r.get("skipped")
            )
        ),
        "pieces": [rolls.roll(p) for p in pieces],
        "music_hint": rolls.hint(pieces),
        "facts": tables.facts(run),
        "job": run.job_text,
        "rejected": run.setup.get("rejected") or [],
        "rejected_title": tables.rejected_title(run),
        "logs": log_tails(run.folder) if facts.phase != "Succeeded" else [],
        "data": {
            "charts": {c.id: plots.cursor_data(c) for c in drawn},
            "pieces": {
                str(number): {"seconds": p.seconds, "notes": p.notes}
                for number, p in enumerate(pieces, 1)
                if p.notes
            },
        },
        **tables.goodput(facts),
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
    titles = [("learning", "Learning"), ("happened", "What happened"), ("resumes", "Resumes")]
    titles += [("goodput", "Goodput"), ("music", "Music"), ("logs", "Logs"), ("setup", "Configuration")]
    there = {"learning": not context["foreign"], "music": not context["foreign"]}
    there |= {
        "resumes": bool(context["resumes"]),
        "goodput": bool(context["shares"]),
        "logs": bool(context["logs"]),
    }
    return [(id_, title) for id_, title in titles if there.get(id_, True)]
