"""`aurl checkpoints list`: the checkpoints of one run, or the runs of one store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aurl_trainer.commands.checkpoints.asked import AsJson
from aurl_trainer.commands.checkpoints.screen import OUTSIDE, Table, count_bar, number, size, when

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurl_trainer.store.catalog.entries import Entry
    from aurl_trainer.store.catalog.scan import Run
    from aurl_trainer.store.format.names import CheckpointName
    from aurl_trainer.store.run_store import RunStore


def list_(
    run: Annotated[
        str, typer.Argument(metavar="RUN|URL", help="A run, or a folder or URL below which runs lie.")
    ],
    metrics: Annotated[bool, typer.Option("--metrics", help="Show every metric, not only the NLL.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the checkpoints of a run, oldest first; or the runs of a store.

    `best` is the one with the lowest validation NLL. Those with a tag are
    shown also where the run went on without them. What is there is looked up
    each time; what is known of it may come from the run's index, so damage is
    found by `verify`.

    \b
    Examples:
      aurl checkpoints list runs/bach
      aurl checkpoints list runs/bach --metrics
      aurl checkpoints list s3://bucket/bach --json | jq '.checkpoints[].step'
      aurl checkpoints list s3://bucket          every run below it
    """
    from aurl_trainer.store.catalog.scan import runs_at
    from aurl_trainer.store.run_store import RunStore

    runs = runs_at(run)
    if len(runs) == 1 and runs[0].alone:
        _list_run(RunStore(runs[0].location), metrics, as_json)
    else:
        _list_runs(run, runs, as_json)


def _list_run(store: RunStore, metrics: bool, as_json: bool) -> None:
    from aurl_trainer.store.catalog.found import tags_of
    from aurl_trainer.store.catalog.index import gather, read_index
    from aurl_trainer.store.format.names import left_behind

    names, tags, aside = store.valid(), tags_of(store), store.aside()
    names = sorted({*names, *(tags.keys() - aside)}, key=lambda n: n.age)
    outside = left_behind(names, store.fences())
    found = gather(store, names, read_index(store.location))
    entries = {e.name: e for e in found.entries}
    rows = [_row(n, entries.get(str(n)), str(found.problems.get(n, "")), tags.get(n, ())) for n in names]
    for name, row in zip(names, rows, strict=True):
        row["in_history"] = name not in outside
    rated = [r for r in rows if r["in_history"] and r.get("metrics", {}).get("val_nll") is not None]
    if rated:
        # Among equals the later is better, as for retention.
        min(reversed(rated), key=lambda r: r["metrics"]["val_nll"])["best"] = True
    damaged = sorted(map(str, aside))
    if as_json:
        typer.echo(json.dumps({"uri": store.location.uri, "checkpoints": rows, "set_aside": damaged}))
        return
    if rows:
        _table(rows, metrics)
    else:
        typer.echo(f"{store.location.uri}: no checkpoints yet")
    for one in damaged:
        typer.echo(f"set aside, since it is damaged: {one}")


def _row(name: CheckpointName, entry: Entry | None, problem: str, tags: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": str(name),
        "number": name.number,
        "step": name.step,
        "generation": name.generation.number,
        "tags": list(tags),
    }
    if entry is None:
        return row | {"error": problem}
    return row | {
        "at": entry.at,
        "bytes": entry.bytes,
        "world": entry.world,
        "metrics": dict(entry.metrics),
        "versions": dict(entry.config["versions"]),
        "best": False,
    }


def _table(rows: list[dict[str, Any]], metrics: bool) -> None:
    every = {name for row in rows for name in row.get("metrics", {})} if metrics else set()
    more = sorted(every - {"val_nll"})
    made = Table("step", "save", "generation", "saved at", "size", "ranks", "val NLL", *more, "")
    for row in rows:
        start = (str(row["step"]), str(row["number"]), str(row["generation"]))
        also = [] if row["in_history"] else [OUTSIDE]
        if "error" in row:
            made.add_row(*start, "", "", "", "", *("" for _ in more), ", ".join([*also, row["error"]]))
            continue
        said = ["best"] if row["best"] else []
        made.add_row(
            *start,
            when(row["at"]),
            size(row["bytes"]),
            str(row["world"]),
            *(number(row["metrics"].get(name)) for name in ("val_nll", *more)),
            ", ".join([*said, *row["tags"], *also]),
        )
    made.show()


def _list_runs(place: str, runs: Sequence[Run], as_json: bool) -> None:
    from aurl_trainer.store.catalog.found import find_all

    with count_bar("runs", len(runs)) as done:
        found = find_all(runs, done)
    rows: list[dict[str, Any]] = []
    for run in found:
        newest = run.entries[-1] if run.entries else None
        rated = [e.metrics["val_nll"] for e in run.entries if e.metrics.get("val_nll") is not None]
        rows.append(
            {
                "run": run.run.name,
                "uri": run.run.location.uri,
                "checkpoints": len(run.entries),
                "step": newest.step if newest else None,
                "at": newest.at if newest else None,
                "best_val_nll": min((v for v in rated if v is not None), default=None),
                "preset": newest.preset if newest else None,
                "problems": list(run.problems),
            }
        )
    if as_json:
        typer.echo(json.dumps({"place": place, "runs": rows}))
        return
    if not rows:
        typer.echo(f"{place}: no runs there")
        return
    made = Table("run", "checkpoints", "newest step", "saved at", "best val NLL", "preset", left=1)
    for row in rows:
        saved = when(row["at"]) if row["at"] else ""
        made.add_row(
            row["run"], str(row["checkpoints"]), number(row["step"]), saved, number(row["best_val_nll"]),
            row["preset"] or "",
        )  # fmt: skip
    made.show()
    for problem in (p for row in rows for p in row["problems"]):
        typer.echo(f"cannot be used: {problem}", err=True)
