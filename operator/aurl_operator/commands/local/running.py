"""What `aurl run` and `aurl rehearse` share: from a job file to a run that has ended, and its exit code.

Not here: options and help (`run.py`, `rehearse.py`), the loop (`backends/local/supervisor.py`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console

from aurl_operator.api.load import load_job
from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.api.status import JobPhase, JobStatus
from aurl_operator.backends.local.build import builder, checkpoints_url
from aurl_operator.backends.local.nodes import LocalNodes
from aurl_operator.backends.local.process.follow import Follower
from aurl_operator.backends.local.process.processes import Processes, kill_leftovers
from aurl_operator.backends.local.progress import Poller
from aurl_operator.backends.local.rundir import RunDir, write_atomically
from aurl_operator.backends.local.supervisor import Interrupts, Supervisor, Watcher, outcome
from aurl_operator.commands.local.screen import Screen
from aurl_operator.commands.local.summary import shown, summary
from aurl_operator.errors import MissingError, NotFinishedError, RunFailedError
from aurl_operator.launch.experiment import as_it_runs, identity
from aurl_trainer.contract import ExitCode, RunFile

REPORT_SECONDS = 300.0


@dataclass(frozen=True)
class Request:
    """What the command line asked for. `run_dir` None: `runs/<job name>`."""

    job: Path
    settings: Sequence[str] = ()
    run_dir: Path | None = None
    capacity: int | None = None
    quiet: bool = False


@dataclass(frozen=True)
class Finished:
    """A run that is over for now: where it is and how it stands. `fresh`: it ran in this call."""

    job: AurlTrainingJob
    run_dir: Path
    status: JobStatus
    fresh: bool


Extra = Callable[[LocalNodes, Screen], Sequence[Watcher]]
"""More watchers of a run, such as a rehearsal."""


def run_locally(request: Request, console: Console, extra: Extra = lambda nodes, screen: ()) -> Finished:
    """Runs the job until it has ended or was interrupted, prints what happened, and returns how it stands.

    Raises ConfigError, RefusedError and MissingError before anything has started, StoppedError at a second
    interrupt. Whether the run did well is the caller's to judge: see `raise_for`.
    """
    job = load_job(request.job, request.settings)
    check_program(job)
    path = request.run_dir or Path("runs") / job.metadata.name
    run = RunDir.open(path, identity(job), wait=console.print)
    try:
        ended = outcome(run.state)
        if ended is not None and ended.phase is JobPhase.SUCCEEDED:
            console.print(
                f"{shown(run.path)} is finished already; for another run: --run-dir", soft_wrap=True
            )
            return Finished(job, run.path, JobStatus.model_validate(run.state["status"]), fresh=False)
        status = _supervise(job, run, request, console, extra)
    finally:
        run.close()
    if job.spec.training is not None and status.progress is not None:
        _write_report(run.path, console)
    for line in summary(job.metadata.name, status, run.path):
        console.print(line, soft_wrap=True)
    return Finished(job, run.path, status, fresh=True)


def _supervise(
    job: AurlTrainingJob, run: RunDir, request: Request, console: Console, extra: Extra
) -> JobStatus:
    kill_leftovers(run.path)
    resolved = as_it_runs(job, checkpoints_url(run.path))
    write_atomically(run.path / RunFile.JOB, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    run.save()
    logs = run.path / RunFile.LOGS
    screen = Screen(console, Follower(logs), request.quiet)
    poller = Poller()
    try:
        with Interrupts() as interrupts:
            processes = Processes(run.lock)
            try:
                build = builder(job, run.run_id, run.path)
                grace = job.spec.termination_grace_period_seconds
                nodes = LocalNodes(processes, build, logs, poller, grace, request.capacity)
                watchers: list[Watcher] = [screen, *extra(nodes, screen)]
                return Supervisor(job, run, nodes, watchers).run(interrupts)
            finally:
                processes.close()
    finally:
        poller.close()
        screen.close()


def check_program(job: AurlTrainingJob) -> None:
    """Raises MissingError if the script of a `command` job is not here, before anything is made."""
    command = job.spec.command
    if command is None or command[0] == "-m" or command[0].startswith("-"):
        return
    if not Path(command[0]).is_file():
        raise MissingError(
            f"spec.command: {command[0]}: no such file in {Path.cwd()} (a module is run by [-m, name])"
        )


def raise_for(finished: Finished, again: str) -> None:
    """Raises the error that stands for a run that has not succeeded; its message says what to do."""
    status = finished.status
    if status.phase is JobPhase.SUCCEEDED:
        return
    if status.phase is JobPhase.SUSPENDED:
        if finished.job.spec.suspend:
            raise NotFinishedError("the job says `suspend: true`; it goes on when that is false")
        raise NotFinishedError(f"saved before its end; go on with: {again}")
    code = ExitCode.RUN_FAILED if status.exit_code is None else ExitCode(status.exit_code)
    raise RunFailedError(f"{finished.job.metadata.name} failed: {status.message}", code)


def _write_report(run_dir: Path, console: Console) -> None:
    """`aurl report`, in a process of its own: whatever it meets, the run's own result stands."""
    argv = [sys.executable, "-m", "aurl_operator", "report", str(run_dir)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=REPORT_SECONDS, check=False)
        words = done.stderr.strip().splitlines()
        problem = (
            None
            if done.returncode == 0
            else words[-1].removeprefix("error: ")
            if words
            else f"exit code {done.returncode}"
        )
    except subprocess.TimeoutExpired:
        problem = f"took longer than {REPORT_SECONDS:.0f} s"
    if problem is not None:
        text = f"no report: {problem}; try: aurl report {shown(run_dir)}"
        console.print(text, style="yellow", soft_wrap=True)
