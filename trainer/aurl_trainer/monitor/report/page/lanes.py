"""What happened over time: finished steps, attempts of nodes, generations and incidents on one axis.

Not here: charts over steps (plots.py), the figures (figures.py, timeline.py), the geometry (charts.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from aurl_trainer.contract import Cause
from aurl_trainer.monitor.report.figures import Figures
from aurl_trainer.monitor.report.lineage import Generation
from aurl_trainer.monitor.report.page import charts, words
from aurl_trainer.monitor.report.page.charts import Axis, Chart, Curve
from aurl_trainer.monitor.report.page.curves import Series, thinned
from aurl_trainer.monitor.report.timeline import Attempt, Incident

_KNOWN = {str(c) for c in Cause} | {"regrouped"}


def style_of(cause: str | None) -> str:
    """The style sheet's class of a cause; never anything that a record brought along."""
    return f"cause-{cause}" if cause in _KNOWN else "cause-unknown"


def time_chart(facts: Figures, origin: float, x: Axis) -> Chart | None:
    """Steps over elapsed time: a run that goes on is a line, what had to be done again falls back."""
    if not facts.total_steps or not facts.step:
        return None
    y = charts.linear(0.0, float(facts.total_steps), count=3, label=lambda v: f"{v:,.0f}")
    curves: list[Curve] = []
    for generation in facts.lineage:
        for name, style, steps in (
            ("done again later", "redone", (*generation.kept[-1:], *generation.redone)),
            ("in the result", "train", generation.kept),
        ):
            if len(steps) > (style == "redone"):
                series = Series(tuple(r["at"] - origin for r in steps), tuple(r["step"] for r in steps))
                curves.append(charts.curve(name, style, thinned(series, 300), x, y))
    return Chart(
        id="time",
        title="Steps over time",
        unit="finished steps",
        summary=f"Finished steps over elapsed time, {facts.step:,} of {facts.total_steps:,} in the end.",
        x=x,
        y=y,
        curves=tuple(curves),
        x_name="time",
        digits=0,
    )


@dataclass(frozen=True)
class Bar:
    """One attempt on the timeline, percent; `ready_width` is its first part, before its ranks ran."""

    at: float
    width: float
    ready_width: float
    style: str
    label: str
    title: str
    attempt: Attempt


@dataclass(frozen=True)
class Spot:
    """An incident on the timeline, percent."""

    at: float
    number: int
    style: str
    title: str


@dataclass(frozen=True)
class Lane:
    """A node's line."""

    node: str
    bars: tuple[Bar, ...]
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class Band:
    """A generation on the timeline, percent."""

    at: float
    width: float
    label: str
    title: str


def lanes(facts: Figures, origin: float, x: Axis) -> list[Lane]:
    """The nodes with their attempts and incidents, and below them what ended no node, if anything."""
    names = list(dict.fromkeys(a.node for a in facts.attempts))
    for incident in facts.incidents:
        names.extend(n for n in incident.nodes if n not in names)
    found = []
    for name in names:
        bars = tuple(_bar(a, origin, x) for a in facts.attempts if a.node == name)
        spots = tuple(
            Spot(x.at(i.at - origin), number, style_of(i.cause), incident_title(i, origin))
            for number, i in enumerate(facts.incidents, 1)
            if name in i.nodes
        )
        found.append(Lane(name, bars, spots))
    noticed = tuple(
        Spot(x.at(i.at - origin), number, style_of(i.cause), incident_title(i, origin))
        for number, i in enumerate(facts.incidents, 1)
        if i.noticed
    )
    return [*found, Lane("checkpoints", (), noticed)] if noticed else found


def bands(facts: Figures, origin: float, x: Axis) -> list[Band]:
    """The generations."""
    return [
        Band(
            at=x.at(g.at - origin),
            width=max(0.1, x.at(g.until - origin) - x.at(g.at - origin)),
            label=str(g.number),
            title=_generation_title(g, origin),
        )
        for g in facts.lineage
    ]


def incident_title(incident: Incident, origin: float) -> str:
    """An incident in one line, for hovering."""
    text = f"{words.clock(incident.at - origin)} · {words.cause(incident.cause)}"
    text += f" · {', '.join(incident.nodes)}" if incident.nodes else ""
    if incident.recovery_seconds is not None:
        text += f" · next step after {words.duration(incident.recovery_seconds)}"
    return text


def _bar(attempt: Attempt, origin: float, x: Axis) -> Bar:
    end = attempt.end - origin if attempt.end is not None else x.high
    begin = attempt.start - origin
    width = max(0.15, x.at(end) - x.at(begin))
    ready = x.at(attempt.ready - origin) - x.at(begin) if attempt.ready is not None else 0.0
    ended = words.cause(attempt.cause) if attempt.cause else "still there"
    lasted = words.duration(max(0.0, end - begin))
    title = f"{attempt.node}, attempt {attempt.number} · from {words.clock(begin)} for {lasted} · {ended}"
    if attempt.message:
        title += f" · {attempt.message}"
    style = style_of(attempt.cause) if attempt.cause else "cause-none"
    return Bar(x.at(begin), width, min(ready, width), style, f"attempt {attempt.number}", title, attempt)


def _generation_title(generation: Generation, origin: float) -> str:
    text = f"Generation {generation.number} · {words.plural(generation.world, 'rank')}"
    text += f" · from {words.clock(generation.at - origin)} to {words.clock(generation.until - origin)}"
    if generation.checkpoint or generation.resumed_from:
        text += f" · went on from step {generation.resumed_from:,}"
    if generation.redone:
        text += f" · {words.plural(len(generation.redone), 'step')} done again later"
    return text
