"""The command: ends processes at their n-th operation until the count is reached, and tells what was lost."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import time
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.stops.trial import Trial
from bench.stops.workers import every_trial

SHOWN = 20


def main(
    stops: Annotated[int, typer.Option(min=1, help="How many ends.")] = 10_000,
    seed: Annotated[
        int, typer.Option(min=0, help="The first run's past; each following takes the next.")
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes; default: one a core.")] = os.cpu_count()
    or 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """End a process at every operation on its store, and look what is lost.

    \b
    Examples:
      python -m bench.stops
      python -m bench.stops --stops 500 --seed 7 --json
    """
    began = time.monotonic()
    counts: Counter[str] = Counter()
    pasts: set[int] = set()
    lost: list[Trial] = []
    columns = (TextColumn("ends"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    quiet = as_json or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("", total=stops)
        with contextlib.closing(every_trial(seed, workers)) as every:
            for trial in itertools.islice(every, stops):
                counts[trial.work] += 1
                pasts.add(trial.seed)
                if trial.problems:
                    lost.append(trial)
                bar.advance(task)
    seconds = time.monotonic() - began
    if as_json:
        found = {"stops": stops, "pasts": len(pasts), "works": dict(counts), "seconds": seconds}
        typer.echo(json.dumps(found | {"lost": [str(t) for t in lost]}))
    else:
        for trial in lost[:SHOWN]:
            typer.echo(str(trial))
        works = ", ".join(f"{count} in {work}" for work, count in counts.items())
        typer.echo(
            f"{stops} ends on {len(pasts)} pasts ({works}) in {seconds:.0f} s: {len(lost)} lost something"
        )
    raise typer.Exit(1 if lost else 0)


if __name__ == "__main__":
    typer.run(main)
