"""What came of a campaign, told: a table for a terminal, one JSON object for a script, a page for a browser.

Pure: text out. Not here: the comparison (judge.py).
"""

from __future__ import annotations

import dataclasses
import html
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bench.chaos.campaign import Struck
from bench.chaos.plan import Mode, Victim
from bench.chaos.stages import Stage

COLOURS = dict(zip(Victim, ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377"), strict=True))

STYLE = "body{font:14px sans-serif;margin:2em auto;max-width:70em}h2{font-size:1em}svg{background:#f7f7f7}"


@dataclass(frozen=True)
class Judged:
    """One run that was led to its end and compared.

    `worlds` are its sizes, one after the other; `digest` is the hash of its final state. `seconds` is its
    own wall time, `calm_seconds` that of the undisturbed run.
    """

    mode: Mode
    number: int
    seed: int
    struck: tuple[Struck, ...]
    differences: tuple[str, ...]
    worlds: tuple[int, ...]
    digest: str
    seconds: float
    calm_seconds: float


def last_line(runs: Sequence[Judged], asked: int) -> str:
    """`200 kills, 0 differences`, and what is missing."""
    done = sum(len(r.struck) for r in runs)
    wrong = sum(len(r.differences) for r in runs)
    missing = "" if done >= asked else f" ({asked - done} of {asked} not done)"
    return f"{done} kills, {wrong} differences{missing}"


def figures(runs: Sequence[Judged], asked: int) -> dict[str, Any]:
    """Everything but the single kills."""
    struck = [s for r in runs for s in r.struck]
    waits = sorted(s.seconds for s in struck if s.seconds is not None)
    return {
        "kills": len(struck),
        "asked": asked,
        "differences": [f"{r.mode} run {r.number}: {d}" for r in runs for d in r.differences],
        "stages": {stage.value: n for stage in Stage if (n := sum(s.found is stage for s in struck))},
        "victims": {victim.value: n for victim in Victim if (n := sum(s.victim is victim for s in struck))},
        "as_aimed": sum(s.found is s.aimed for s in struck),
        "seconds_to_next_new_step": {
            "median": round(statistics.median(waits), 1),
            "p95": round(waits[int(0.95 * (len(waits) - 1))], 1),
            "most": round(waits[-1], 1),
        }
        if waits
        else None,
        "steps_done_again": _again(struck),
        "runs": [
            {
                "mode": r.mode.value,
                "run": r.number,
                "seed": r.seed,
                "kills": len(r.struck),
                "generations": len(r.worlds),
                "worlds": _changes(r.worlds),
                "digest": r.digest,
                "seconds": round(r.seconds, 1),
                "calm_seconds": round(r.calm_seconds, 1),
            }
            for r in runs
        ],
    }


def _again(struck: Sequence[Struck]) -> dict[str, float] | None:
    """What the kills that ended a generation cost, in steps; never more than it had done since a save."""
    steps = [s.again for s in struck if s.again is not None]
    return {"median": statistics.median(steps), "most": max(steps), "kills": len(steps)} if steps else None


def table(runs: Sequence[Judged]) -> Table:
    """Kills by the stage that they fell into and by victim, how long it took to come further, steps lost."""
    struck = [s for r in runs for s in r.struck]
    found = Table(title="kills by stage and victim")
    found.add_column("stage", no_wrap=True)
    for name in (*(v.value for v in Victim), "all", "s to a new step", "steps again", "at most"):
        found.add_column(name, justify="right")
    for stage in Stage:
        here = [s for s in struck if s.found is stage]
        found.add_row(stage.value, *_cells(here), _median(here), *_steps(here))
    found.add_section()
    found.add_row("all", *_cells(struck), _median(struck), *_steps(struck))
    return found


def _cells(struck: Sequence[Struck]) -> list[str]:
    counts = Counter(s.victim for s in struck)
    return [*(str(counts[v]) if counts[v] else "" for v in Victim), str(len(struck))]


def _median(struck: Sequence[Struck]) -> str:
    waits = [s.seconds for s in struck if s.seconds is not None]
    return f"{statistics.median(waits):.1f}" if waits else ""


def _steps(struck: Sequence[Struck]) -> tuple[str, str]:
    again = _again(struck)
    return ("", "") if again is None else (f"{again['median']:g}", f"{again['most']:g}")


def _changes(worlds: Sequence[int]) -> list[int]:
    """The sizes without repetitions."""
    return [w for i, w in enumerate(worlds) if i == 0 or w != worlds[i - 1]]


def page(runs: Sequence[Judged], asked: int) -> str:
    """One HTML file: for each run the steps over time, with every kill."""
    wrong = [f"<li>{html.escape(d)}</li>" for d in figures(runs, asked)["differences"]]
    keys = " ".join(f'<b style="color:{c}">&#9679; {v.value}</b>' for v, c in COLOURS.items())
    charts = "".join(f"<h2>{_title(r)}</h2>{_chart(r)}" for r in runs)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>chaos</title>
<style>{STYLE}</style>
<h1>{html.escape(last_line(runs, asked))}</h1><ul>{"".join(wrong)}</ul>
<p>The furthest step over wall time; each dot is a kill (point at it to see which). {keys}</p>
{charts}</html>
"""


def _title(run: Judged) -> str:
    worlds = ", ".join(str(w) for w in _changes(run.worlds))
    return (
        f"{run.mode.value}, run {run.number}, seed {run.seed}: {len(run.struck)} kills, worlds {worlds}, "
        f"{len(run.differences)} differences, {run.digest[:12]}"
    )


def _chart(run: Judged, width: int = 900, height: int = 120) -> str:
    if not run.struck:
        return ""
    first = run.struck[0].at
    span = max(1.0, run.struck[-1].at - first)
    most = max(1, *(s.furthest for s in run.struck))

    def at(s: Struck) -> tuple[float, float]:
        return 10 + (width - 20) * (s.at - first) / span, height - 10 - (height - 20) * s.furthest / most

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, run.struck))
    dots = ""
    for s in run.struck:
        x, y = at(s)
        wait = "" if s.seconds is None else f", {s.seconds:.1f} s to a new step"
        wait += "" if s.again is None else f", {s.again} steps again"
        words = html.escape(f"{s.number}: {s.victim} in {s.found}, step {s.step}{wait}")
        colour = COLOURS[s.victim]
        dots += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{words}</title></circle>'
    return (
        f'<svg viewBox="0 0 {width} {height}" width="100%">'
        f'<polyline points="{line}" fill="none" stroke="#bbb"/>{dots}</svg>'
    )


def as_json(struck: Struck) -> dict[str, Any]:
    """One line of kills.jsonl."""
    return dataclasses.asdict(struck)
