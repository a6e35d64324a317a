"""The command: flips bits in every object, and tells what was not found or loaded wrong."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.bitrot.flips import flips
from bench.bitrot.judge import problems
from bench.bitrot.place import make

SHOWN = 20


def main(
    bits: Annotated[int, typer.Option(min=1, help="Bits of each object, one at a time.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Which bits.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Flip bits in every object of a run's place, one at a time, and see that none is loaded.

    \b
    Examples:
      python -m bench.bitrot
      python -m bench.bitrot --bits 200 --seed 7 --json
    """
    # Each fall-back is told loudly, as it should be; here it is counted.
    logging.getLogger("aurl_trainer").addHandler(logging.NullHandler())
    began = time.monotonic()
    objects = {path.removeprefix("/rotten/"): data for path, data in make().items()}
    every = list(flips(objects, bits, seed))
    kinds = Counter(path.partition("/")[0] for path in objects)
    counts = Counter(flip.folder for flip in every)
    wrong: list[str] = []
    columns = (TextColumn("flips"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    quiet = as_json or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        for flip in bar.track(every):
            wrong += [f"bit {flip.bit} of {flip.path}: {problem}" for problem in problems(objects, flip)]
    seconds = time.monotonic() - began
    if as_json:
        told = {"objects": kinds, "flips": counts, "seconds": seconds, "wrong": wrong}
        typer.echo(json.dumps(told))
    else:
        for line in wrong[:SHOWN]:
            typer.echo(line)
        which = ", ".join(f"{counts[kind]} in {number} of {kind}" for kind, number in kinds.items())
        typer.echo(f"{len(every)} flips ({which}) in {seconds:.0f} s: {len(wrong)} not found or loaded wrong")
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
