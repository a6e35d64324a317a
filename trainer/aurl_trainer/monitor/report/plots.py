"""The report's charts, drawn from its figures: loss, learning rate and what else a step tells, and time.

Not here: the figures (figures.py, lineage.py) and the geometry (charts.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aurl_trainer.contract import Cause
from aurl_trainer.monitor.report import charts, words
from aurl_trainer.monitor.report.charts import Axis, Chart, Curve, Mark, Rule
from aurl_trainer.monitor.report.curves import Series, smoothed, span_of, thinned
from aurl_trainer.monitor.report.figures import Figures
from aurl_trainer.monitor.report.lineage import Generation, surviving
from aurl_trainer.monitor.report.source import Record, Run
from aurl_trainer.monitor.report.timeline import Attempt, Incident

_KNOWN = {str(c) for c in Cause} | {"regrouped"}


def style_of(cause: str | None) -> str:
    """The style sheet's class of a cause; never anything that a record brought along."""
    return f"cause-{cause}" if cause in _KNOWN else "cause-unknown"


def loss_chart(run: Run, facts: Figures) -> Chart | None:
    """Loss over steps; None before the first step."""
    kept = _series([r for g in facts.lineage for r in g.kept], "loss")
    evaluations = {r["step"]: r for r in reversed(surviving(run, facts.lineage, "evaluation"))}
    validation = _series([evaluations[s] for s in sorted(evaluations)], "val_loss")
    if not kept.finite and not validation.finite:
        return None
    mean = smoothed(kept)
    rules = [("unigram model", "unigram", facts.unigram), ("order-2 Markov model", "markov", facts.markov2)]
    known = [(name, style, v) for name, style, v in rules if v is not None]
    span = span_of([mean.finite, validation.finite, [v for _, _, v in known]])
    raw_span = span_of([kept.finite], trim=0.01) or span
    assert span is not None and raw_span is not None
    y = charts.linear(min(span[0], raw_span[0]), max(span[1], raw_span[1]), snap=True)
    x = _steps_axis(facts)
    curves = [
        *_discarded(facts.lineage, "loss", x, y),
        charts.curve("each step", "raw", thinned(kept), x, y),
        charts.curve("training, smoothed", "train", thinned(mean), x, y),
        charts.curve("validation", "validation", thinned(validation), x, y),
    ]
    return Chart(
        id="loss",
        title="Loss",
        unit="nats per token",
        summary=_loss_summary(mean, validation),
        x=x,
        y=y,
        curves=tuple(c for c in curves if c.path),
        rules=tuple(Rule(name, style, y.at(v), v) for name, style, v in known),
        marks=_restarts(facts, x),
    )


def small_charts(facts: Figures) -> list[Chart]:
    """Learning rate, gradient norm and speed over steps, as far as they were recorded."""
    steps = [r for g in facts.lineage for r in g.kept]
    speed = Series(
        tuple(r["step"] for r in steps),
        tuple(r["tokens"] / r["seconds"] if r["seconds"] > 0 else None for r in steps),
    )
    wanted: list[tuple[str, str, str, Series, Callable[[float], str]]] = [
        ("lr", "Learning rate", "", _series(steps, "lr"), lambda v: f"{v:.3g}"),
        ("norm", "Gradient norm", "before clipping", _series(steps, "grad_norm"), lambda v: f"{v:g}"),
        ("speed", "Speed", "tokens per second", speed, lambda v: f"{v:,.0f}"),
    ]
    x = _steps_axis(facts, count=4)
    found = []
    for id_, title, unit, series, label in wanted:
        if not series.finite:
            continue
        span = span_of([series.finite], trim=0.002)
        assert span is not None
        y = charts.linear(0.0, span[1], count=3, label=label, snap=True)
        found.append(
            Chart(
                id=id_,
                title=title,
                unit=unit,
                summary=f"{title}, steps {series.x[0]:,} to {series.x[-1]:,}: at most {label(span[1])}.",
                x=x,
                y=y,
                curves=(charts.curve(title.lower(), "train", thinned(series), x, y, area=id_ == "lr"),),
                marks=_restarts(facts, x),
                digits=0 if id_ == "speed" else 6 if id_ == "lr" else 3,
                small=True,
            )
        )
    return found


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
    """The nodes with their attempts and incidents."""
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
    return found


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


def _steps_axis(facts: Figures, count: int = 8) -> Axis:
    last = max([facts.step] + [r["step"] for g in facts.lineage for r in g.redone[-1:]])
    high = facts.total_steps if facts.phase == "Succeeded" else max(last, 1)
    return charts.linear(0.0, float(max(high, last)), count=count, label=lambda v: f"{v:,.0f}")


def _restarts(facts: Figures, x: Axis) -> tuple[Mark, ...]:
    """Where each generation after the first took over. Of many, those at the same place share a flag."""
    marks: dict[float, list[Generation]] = {}
    for generation in facts.lineage[1:]:
        marks.setdefault(round(x.at(generation.resumed_from)), []).append(generation)
    found = []
    for group in marks.values():
        first, last = group[0], group[-1]
        label = str(first.number) if first is last else f"{first.number}–{last.number}"
        title = "; ".join(f"generation {g.number} went on from step {g.resumed_from:,}" for g in group[:5])
        found.append(Mark(x.at(first.resumed_from), label, title))
    return tuple(found)


def _discarded(lineage: Sequence[Generation], field: str, x: Axis, y: Axis) -> list[Curve]:
    """What was done again later, joined to the last step before it that was kept."""
    found = []
    for generation in lineage:
        if generation.redone:
            series = _series([*generation.kept[-1:], *generation.redone], field)
            found.append(charts.curve("done again later", "redone", thinned(series, 200), x, y))
    return found


def _series(records: Sequence[Record], field: str) -> Series:
    return Series(tuple(r["step"] for r in records), tuple(r.get(field) for r in records))


def _loss_summary(mean: Series, validation: Series) -> str:
    parts = []
    if mean.finite:
        parts.append(f"Training loss, smoothed, goes from {mean.finite[0]:.2f} to {mean.finite[-1]:.2f}.")
    if validation.finite:
        parts.append(f"Validation loss goes from {validation.finite[0]:.2f} to {validation.finite[-1]:.2f}.")
    return " ".join(parts)
