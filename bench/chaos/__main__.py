"""The command: the runs one after the other, each beside an undisturbed one of the same seed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from aurl_operator.backends.local.rundir import read_ledger
from aurl_trainer.contract import ExitCode
from aurl_trainer.errors import AurlTrainerError
from bench.chaos.campaign import Leader, Struck, StuckError
from bench.chaos.job import job, write_music
from bench.chaos.judge import Result, Trace, damage, differences, noticed, result, trace
from bench.chaos.plan import Mode, RunPlan, plan
from bench.chaos.report import Judged, as_json, figures, last_line, page, table
from bench.chaos.stages import Rhythm
from bench.chaos.victims import leftovers

RHYTHM = Rhythm(steps=360, save_every=8, evaluate_every=16)

RESERVE_SECONDS = 90.0
"""Kept of the time for the end of the last run and for its judgement."""

SWEEP_SECONDS = 30.0
"""What is left of a run that was given up has to be gone by then."""


@dataclass(frozen=True)
class Calm:
    """The undisturbed run of a seed."""

    trace: Trace
    result: Result
    seconds: float


class Campaign:
    """All runs of one mode below `folder`. `tell` hears of each kill, `say` of what comes next.

    `deadline` is monotonic time; `patience`: seconds without a new step after which a run counts as stuck.
    """

    def __init__(
        self,
        mode: Mode,
        folder: Path,
        deadline: float,
        patience: float,
        tell: Callable[[Struck], None],
        say: Callable[[str], None],
    ) -> None:
        self._mode, self._folder, self._tell, self._say = mode, folder, tell, say
        self._deadline, self._patience = deadline, patience
        self._calm: dict[int, Calm] = {}
        self._music = write_music(folder / "music")

    def run(self, plans: Sequence[RunPlan]) -> Iterator[Judged]:
        """Every run of the plan, and more of them for kills that a run ended too early for.

        Raises StuckError when an undisturbed run does not succeed.
        """
        open_plans, number = list(plans), len(plans)
        while open_plans and time.monotonic() < self._deadline:
            judged, left = self._one(open_plans.pop(0))
            yield judged
            if judged.struck and left.kills:
                number += 1
                open_plans.append(replace(left, number=number))

    def _one(self, now: RunPlan) -> tuple[Judged, RunPlan]:
        job_file = self._job(now.seed)
        if now.seed not in self._calm:
            self._say(f"{self._mode} run {now.number}: undisturbed")
            self._calm[now.seed] = self._undisturbed(job_file, now)
        calm = self._calm[now.seed]
        self._say(f"{self._mode} run {now.number}: {len(now.kills)} kills")
        run = self._folder / f"run-{now.number:02d}"
        leader = self._leader(job_file, run, now, now.world)
        began, problems, found = time.monotonic(), [], None
        try:
            leader.lead(now.kills)
        except StuckError as error:
            problems.append(str(error))
            _swept(run)
        seconds = time.monotonic() - began
        problems += [f"left over: {line}" for line in leftovers(run)]
        try:
            problems += [f"damaged: {line}" for line in damage(run)]
            problems += noticed(read_ledger(run))
            found = (trace(run), result(run))
            problems += differences((calm.trace, calm.result), found)
        except (AurlTrainerError, IndexError) as error:
            problems.append(f"cannot be judged: {error}")
        led = leader.led
        judged = Judged(
            mode=self._mode,
            number=now.number,
            seed=now.seed,
            struck=tuple(led.struck),
            differences=tuple(problems),
            worlds=tuple(w for _, w in sorted(found[0].worlds.items())) if found else (),
            digest=found[1].digest if found else "",
            seconds=seconds,
            calm_seconds=calm.seconds,
        )
        return judged, replace(now, kills=led.left)

    def _undisturbed(self, job_file: Path, now: RunPlan) -> Calm:
        run = self._folder / f"calm-{now.seed}"
        began = time.monotonic()
        self._leader(job_file, run, now, 2).lead(())
        seconds = time.monotonic() - began
        return Calm(trace(run), result(run), seconds)

    def _leader(self, job_file: Path, run: Path, now: RunPlan, nodes: int) -> Leader:
        return Leader(
            job_file,
            run,
            RHYTHM,
            number=now.number,
            nodes=nodes,
            elastic=self._mode is Mode.EXACT,
            deadline=self._deadline,
            patience=self._patience,
            tell=self._tell,
        )

    def _job(self, seed: int) -> Path:
        return job(
            self._folder / f"job-{seed}",
            self._music,
            nodes={"min": 1, "max": 2},
            steps=RHYTHM.steps,
            seed=seed,
            checkpoint={"every": RHYTHM.save_every, "keep": {"latest": 2, "best": 1}},
            monitor={"evaluate_every": RHYTHM.evaluate_every},
            engine={"reproducibility": "exact", "threads": 1} if self._mode is Mode.EXACT else {},
        )


def _swept(run: Path) -> None:
    """Waits until nothing of a killed run is left, as its guard sees to."""
    end = time.monotonic() + SWEEP_SECONDS
    while leftovers(run) and time.monotonic() < end:
        time.sleep(0.2)


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
                campaign = Campaign(each, folder / each.value, deadline, patience, tell, say)
                try:
                    for judged in campaign.run(plan(seed, kills, each, most_steps=RHYTHM.save_every)):
                        runs.append(judged)
                        for struck in judged.struck:
                            log.write(json.dumps({"mode": each.value, **as_json(struck)}) + "\n")
                        log.flush()
                except StuckError as error:
                    typer.echo(f"error: the undisturbed run in {folder / each.value}: {error}", err=True)
                    raise typer.Exit(ExitCode.RUN_FAILED) from None
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
