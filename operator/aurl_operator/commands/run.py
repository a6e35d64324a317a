"""`aurl run`: a job on this machine, its nodes as local processes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The job's YAML file.", show_default=False)]
RunDirOption = Annotated[
    Path | None,
    typer.Option("--run-dir", help="Where the run lives; default: runs/NAME.", show_default=False),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a field; may be repeated.", show_default=False),
]
CapacityOption = Annotated[
    int | None,
    typer.Option("--capacity", min=0, help="Nodes this machine offers; default: all.", show_default=False),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Do not follow the processes' logs.")]


def run(
    job: JobFile,
    run_dir: RunDirOption = None,
    settings: SetOption = None,
    capacity: CapacityOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run a job on this machine, its nodes as local processes.

    Lost processes come back by the job's own rules, from the newest
    checkpoint. Ctrl-C once saves and leaves, and the same command goes on
    later; twice stops at once. All of a run lies in its directory: the
    resolved job, logs, ledger, checkpoints, samples and the report.

    \b
    Examples:
      aurl run job.yaml
      aurl run job.yaml --set nodes.max=3 --set training.seed=2
      aurl run job.yaml --run-dir runs/second-try
      aurl run job.yaml --quiet > run.log
    """
    from aurl_operator.commands.console import console
    from aurl_operator.commands.local.running import Request, raise_for, run_locally

    again = command_line("run", job, run_dir, settings, capacity)
    request = Request(job, settings or (), run_dir, capacity, quiet)
    raise_for(run_locally(request, console()), again)


def command_line(
    command: str, job: Path, run_dir: Path | None, settings: list[str] | None, capacity: int | None
) -> str:
    """The command that continues this run, as one would type it."""
    words = ["aurl", command, str(job)]
    for setting in settings or ():
        words += ["--set", setting]
    if run_dir is not None:
        words += ["--run-dir", str(run_dir)]
    if capacity is not None:
        words += ["--capacity", str(capacity)]
    return shlex.join(words)
