"""Charts over steps: loss, learning rate, and what else a step tells.

Not here: what happened over time (lanes.py), the figures (figures.py, lineage.py), the geometry (charts.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aurl_trainer.monitor.report.figures import Figures
from aurl_trainer.monitor.report.lineage import Generation, surviving
from aurl_trainer.monitor.report.page import charts
from aurl_trainer.monitor.report.page.charts import Axis, Chart, Curve, Mark, Rule
from aurl_trainer.monitor.report.page.curves import Series, smoothed, span_of, thinned
from aurl_trainer.monitor.report.source import Record, Run


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


def cursor_data(chart: Chart) -> dict[str, Any]:
    """What the page needs to show values under the cursor; redone steps are left out."""

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
