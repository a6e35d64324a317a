"""The command: the runs of a plan, and what came of them as a table, a page and JSON.

Not here: a run (runs.py), whom it strikes when (plan.py).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from aurl_trainer.contract import ExitCode
from bench.chaos.campaign import Struck, StuckError
from bench.chaos.plan import Mode, plan
from bench.chaos.report import Judged, as_json, figures, last_line, page, table
from bench.chaos.runs import RHYTHM, Runs

RESERVE_SECONDS = 90.0
"""Kept of the time for the end of the last run and for its judgement."""


def main(
    kills: Annotated[int, typer.Option(min=1, help="Strikes in all, in each mode.")] = 200,
    seed: Annotated[int, typer.Option(help="Decides whom to strike when.")] = 1,
    minutes: Annotated[float, typer.Option(min=1, help="Time limit, in each mode.")] = 60.0,
    mode: Annotated[
        Literal["world", "exact", "both"],
        typer.Option(help="world: two nodes throughout. exact: 1, 2, 3, 2, 1 nodes, in exact arithmetic."),
    ] = "world",
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds without a new step after which a run counts as stuck.")
    ] = 300.0,
    at_once: Annotated[int, typer.Option(min=1, help="Runs at a time; each takes two to three cores.")] = 1,
    device: Annotated[str, typer.Option(help="What the ranks train on: cpu, or cuda.")] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(help="Where runs, kills.jsonl and report.html go.", show_default="runs/chaos-TIME"),
    ] = None,
    as_object: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Kill parts of real runs at chosen moments, and compare each run with an undisturbed one.

    Ends with 0 if nothing differs, 1 if anything does, 9 if the time was over
    before all kills were done.

    \b
    Examples:
      python -m bench.chaos
      python -m bench.chaos --kills 10 --seed 7
      python -m bench.chaos --at-once 6 --device cuda
      python -m bench.chaos --mode exact --out runs/chaos-exact --json > chaos.json
    """
    folder = out or Path("runs") / time.strftime("chaos-%Y%m%d-%H%M%S")
    if folder.exists() and any(folder.iterdir()):
        typer.echo(f"error: {folder} holds files already; choose another with --out", err=True)
        raise typer.Exit(ExitCode.REFUSED)
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True, highlight=False)
    modes = [Mode(mode)] if mode != "both" else list(Mode)
    asked = kills * len(modes)
    runs: list[Judged] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("kills"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("chaos", total=asked)
        with (folder / "kills.jsonl").open("w") as log:

            def tell(struck: Struck) -> None:
                bar.advance(task)

            def say(text: str) -> None:
                bar.update(task, description=text)
                if not console.is_terminal:
                    console.print(text)

            for each in modes:
                deadline = time.monotonic() + minutes * 60 - RESERVE_SECONDS
                runs_of = Runs.below(folder / each.value, each, deadline, patience, device)
                plans = plan(seed, kills, each, most_steps=RHYTHM.save_every)
                one_by_one = at_once == 1
                led = runs_of.one_by_one(plans, tell, say) if one_by_one else runs_of.at_once(plans, at_once)
                try:
                    for judged in led:
                        runs.append(judged)
                        if not one_by_one:
                            bar.advance(task, len(judged.struck))
                        for struck in judged.struck:
                            log.write(json.dumps({"mode": each.value, **as_json(struck)}) + "\n")
                        log.flush()
                except StuckError as error:
                    typer.echo(f"error: the undisturbed run in {folder / each.value}: {error}", err=True)
                    raise typer.Exit(ExitCode.RUN_FAILED) from None
    runs.sort(key=lambda run: (run.mode, run.number))
    (folder / "report.html").write_text(page(runs, asked), encoding="utf-8")
    found = figures(runs, asked)
    (folder / "figures.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if as_object:
        typer.echo(json.dumps(found, indent=1))
    else:
        Console(width=110).print(table(runs))
        for line in found["differences"]:
            typer.echo(line)
        typer.echo(f"{folder}/report.html")
        typer.echo(last_line(runs, asked))
    if found["differences"]:
        raise typer.Exit(ExitCode.CRASH)
    if found["kills"] < asked:
        raise typer.Exit(ExitCode.NOT_FINISHED)


if __name__ == "__main__":
    typer.run(main)
