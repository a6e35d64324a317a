"""`aurl checkpoints find` and `index`: checkpoints of many runs, by what is known of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aurl_trainer.commands.checkpoints.asked import AsJson
from aurl_trainer.commands.checkpoints.screen import Table, count_bar, number, size, when

if TYPE_CHECKING:
    from aurl_trainer.store.catalog.entries import Entry

Place = Annotated[str, typer.Argument(metavar="URL", help="A folder or URL below which runs lie, or a run.")]


def find(
    url: Place,
    where: Annotated[str | None, typer.Option(help="Only those for which this holds.")] = None,
    sort: Annotated[
        str | None, typer.Option(help="A field to sort by, smallest first; -FIELD: last.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find checkpoints of many runs.

    Fields: name, run, number, step, at, world, bytes, preset, tags; parts of
    the configuration, as model.dim or data.sequence_length; and every metric
    by its name. They are compared by < <= > >= = != in, `is None`, and joined
    by and, or, not. A field that is not there makes a comparison false.

    \b
    Examples:
      aurl checkpoints find s3://bucket --where "val_nll<0.5 and preset='high_quality'" --sort val_nll
      aurl checkpoints find runs --where "model.dim >= 256 and 'paper' in tags"
      aurl checkpoints find runs --where "at > '2026-11-01'" --sort -at --limit 5 --json
    """
    from aurl_trainer.store.catalog.found import find_all
    from aurl_trainer.store.catalog.scan import runs_at
    from aurl_trainer.store.catalog.where import Where, sort_field, sorted_by

    condition = Where.parse(where) if where is not None else None
    order = sort_field(sort) if sort is not None else None
    runs = runs_at(url)
    with count_bar("runs", len(runs)) as done:
        found = find_all(runs, done)
    entries = [e for run in found for e in run.entries]
    chosen = condition.select(entries) if condition else entries
    if order is not None:
        chosen = sorted_by(chosen, order, entries)
    problems = [p for run in found for p in run.problems]
    if as_json:
        rows = [e.to_json() for e in chosen[:limit]]
        typer.echo(json.dumps({"place": url, "checkpoints": rows, "problems": problems}))
        return
    asked = [*(condition.fields() if condition else []), *([order.field] if order else [])]
    _table(chosen[:limit], asked)
    for problem in problems:
        typer.echo(f"cannot be used: {problem}", err=True)


def _table(entries: list[Entry], asked: list[tuple[str, ...]]) -> None:
    shown = {("run",), ("step",), ("number",), ("at",), ("bytes",), ("tags",), ("val_nll",)}
    more = [f for f in dict.fromkeys(asked) if f not in shown]
    titles = ["run", "step", "save", "saved at", "size", "val nll", *(".".join(f) for f in more), "tags"]
    made = Table(*titles, left=1)
    for e in entries:
        made.add_row(
            e.run, str(e.step), str(e.number), when(e.at), size(e.bytes), number(e.metrics.get("val_nll")),
            *(_cell(e.value(f)) for f in more), ", ".join(e.tags),
        )  # fmt: skip
    if entries:
        made.show()
    typer.echo(f"{len(entries)} checkpoints")


def _cell(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else number(value)


def index(
    url: Place,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Read every manifest again, whatever the index says.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the index of each run below URL, so that `find` reads no manifests.

    Saves, retention, gc and copy keep it fresh; this is for runs of an older
    Aurl. Nothing depends on it: which checkpoints there are is listed each
    time, and what an index lacks is read from the manifests.

    \b
    Examples:
      aurl checkpoints index s3://bucket
      aurl checkpoints index s3://bucket --rebuild
    """
    from aurl_trainer.store.catalog.index import renew_index
    from aurl_trainer.store.catalog.scan import runs_at
    from aurl_trainer.store.run_store import RunStore

    runs = runs_at(url)
    rows = []
    with count_bar("runs", len(runs)) as done:
        for run in runs:
            found = renew_index(RunStore(run.location), rebuild=rebuild)
            rows.append(
                {
                    "run": run.name, "checkpoints": len(found.entries), "read": found.read,
                    "problems": list(map(str, found.problems.values())),
                }
            )  # fmt: skip
            done()
    if as_json:
        typer.echo(json.dumps({"place": url, "runs": rows}))
        return
    for row in rows:
        typer.echo(f"{row['run']}: {row['checkpoints']} checkpoints, {row['read']} manifests read")
        for problem in row["problems"] if isinstance(row["problems"], list) else []:
            typer.echo(f"  cannot be used: {problem}")
