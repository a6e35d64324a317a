"""`aurl checkpoints`: what a run has saved, and whether it is whole.

Not here: the format (store/). Importing this loads neither torch nor a store.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aurl_trainer.contract import ExitCode

if TYPE_CHECKING:
    from aurl_trainer.store.format.names import CheckpointName
    from aurl_trainer.store.run_store import RunStore

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)

Run = Annotated[str, typer.Argument(metavar="RUN|URL", help="A run's directory, or a checkpoint URL.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.callback()
def checkpoints() -> None:
    """List and verify what a run has saved.

    \b
    Examples:
      aurl checkpoints list runs/bach
      aurl checkpoints list gs://bucket/bach --json
      aurl checkpoints verify runs/bach
    """


@app.command("list")
def list_(run: Run, as_json: AsJson = False) -> None:
    """Show the checkpoints of a run, oldest first.

    `best` is the one with the lowest validation NLL. A damaged one is named
    as such when its manifest cannot be read; `verify` reads all the rest.

    \b
    Examples:
      aurl checkpoints list runs/bach
      aurl checkpoints list s3://bucket/bach --json | jq '.checkpoints[].step'
    """
    store = _open(run)
    rows = [_row(store, name) for name in store.valid()]
    rated = [r for r in rows if r.get("metrics", {}).get("val_nll") is not None]
    if rated:
        # Among equals the later is better, as for retention.
        min(reversed(rated), key=lambda r: r["metrics"]["val_nll"])["best"] = True
    if as_json:
        typer.echo(json.dumps({"uri": store.location.uri, "checkpoints": rows}))
        return
    if not rows:
        typer.echo(f"{store.location.uri}: no checkpoints yet")
        return
    _table(rows)


@app.command()
def verify(
    run: Run,
    step: Annotated[int | None, typer.Option(min=0, help="Only the checkpoint of this step.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read every byte of a run's checkpoints and check every hash.

    Ends with exit code 5 when one is damaged, and names each damaged item.

    \b
    Examples:
      aurl checkpoints verify runs/bach
      aurl checkpoints verify gs://bucket/bach --step 1200
    """
    from aurl_trainer.errors import CheckpointError
    from aurl_trainer.store.verify import verify as verify_one
    from aurl_trainer.store.verify import verify_generations

    store = _open(run)
    names = [n for n in store.valid() if step is None or n.step == step]
    if not names:
        which = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        raise CheckpointError(f"{store.location.uri}: {which} there")
    verdicts = []
    for name in names:
        with _progress(store, name, quiet=as_json) as advance:
            verdicts.append(verify_one(store, name, advance))
        if not as_json:
            verdict = verdicts[-1]
            typer.echo(f"step {name.step}: " + ("whole" if verdict.good else "DAMAGED"))
            for problem in verdict.problems:
                typer.echo(f"  {problem}")
    records = list(verify_generations(store))
    if as_json:
        found = [
            {"name": str(v.name), "step": v.name.step, "good": v.good, "problems": list(v.problems)}
            for v in verdicts
        ]
        typer.echo(json.dumps({"uri": store.location.uri, "checkpoints": found, "generations": records}))
    else:
        for line in records:
            typer.echo(f"a generation's record is damaged, which does no harm: {line}")
    if not all(v.good for v in verdicts):
        raise typer.Exit(ExitCode.CHECKPOINT)


def _open(run: str) -> RunStore:
    from aurl_trainer.store.choose import checkpoints_of
    from aurl_trainer.store.location import Location
    from aurl_trainer.store.run_store import RunStore

    return RunStore(Location(checkpoints_of(run)))


def _row(store: RunStore, name: CheckpointName) -> dict[str, Any]:
    from aurl_trainer.errors import CheckpointError

    row: dict[str, Any] = {
        "name": str(name),
        "number": name.number,
        "step": name.step,
        "generation": name.generation.number,
    }
    try:
        manifest = store.manifest(name)
    except CheckpointError as error:
        return row | {"error": str(error)}
    return row | {
        "at": manifest.at,
        "bytes": manifest.stored_bytes,
        "world": manifest.world,
        "metrics": dict(manifest.metrics),
        "versions": dict(manifest.versions),
        "best": False,
    }


def _table(rows: list[dict[str, Any]]) -> None:
    from datetime import datetime

    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("step", "save", "generation", "saved at", "size", "ranks", "val NLL"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for row in rows:
        start = (str(row["step"]), str(row["number"]), str(row["generation"]))
        if "error" in row:
            table.add_row(*start, "", "", "", "", row["error"])
            continue
        nll = row["metrics"].get("val_nll")
        table.add_row(
            *start,
            datetime.fromtimestamp(row["at"]).strftime("%Y-%m-%d %H:%M:%S"),
            decimal(row["bytes"]),
            str(row["world"]),
            "" if nll is None else f"{nll:.4f}",
            "best" if row["best"] else "",
        )
    console = Console()
    # A pipe has no width: nothing is folded there.
    Console(width=None if console.is_terminal else 200).print(table)


@contextlib.contextmanager
def _progress(
    store: RunStore, name: CheckpointName, *, quiet: bool
) -> Iterator[Callable[[int], None] | None]:
    """A bar on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from aurl_trainer.errors import CheckpointError

    try:
        total: int | None = store.manifest(name).stored_bytes
    except CheckpointError:
        total = None
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"step {name.step}", total=total)
        yield lambda count: bar.advance(task, count)
