"""What a job would start on this machine: the core's own starts, built as for a run, with nothing started.

The core is shown a world in which every start succeeds at once. Not here: how it is shown
(`commands/explain.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.backends.local.build import builder
from aurl_operator.backends.local.nodes import Assignment
from aurl_operator.core.memory import Memory
from aurl_operator.core.observed import LOCAL, Observed, Process, Role, State
from aurl_operator.core.plan import Start
from aurl_operator.core.reconcile import reconcile
from aurl_operator.launch.command import Command
from aurl_trainer.contract import RunFile

RUN_ID = "RUN"
"""Stands for the run's id, which a run gets at its first start."""

FIRST_PORT = 29400
"""Ports are counted from here; a run takes free ones."""


@dataclass(frozen=True)
class Preview:
    """One process that would start, and the file that takes its output."""

    start: Start
    command: Command
    log: Path


def preview(job: AurlTrainingJob, run_dir: Path) -> list[Preview]:
    """The first starts of a new run of `job` in `run_dir`, in order."""
    build = builder(job, RUN_ID, run_dir)
    logs = run_dir / RunFile.LOGS
    found = []
    for number, start in enumerate(_starts(job)):
        log = logs / f"{start.name}.log"
        termination = logs / f"{start.name}.termination.json"
        assignment = Assignment(f"UID-OF-{start.name}", log, termination, FIRST_PORT + number)
        found.append(Preview(start, build(start, assignment), log))
    return found


def _starts(job: AurlTrainingJob) -> Iterator[Start]:
    memory = Memory()
    processes: dict[str, Process] = {}
    for look in range(10):
        plan = reconcile(
            Observed(
                now=float(look),
                job=job,
                run_id=RUN_ID,
                memory=memory,
                processes=tuple(processes.values()),
                capabilities=LOCAL,
            )
        )
        memory = plan.memory
        for start in plan.starts:
            if start.name not in processes:
                processes[start.name] = _running(start, float(look), FIRST_PORT + len(processes))
                yield start


def _running(start: Start, now: float, port: int) -> Process:
    return Process(
        role=start.role,
        uid=start.name,
        name=start.name,
        index=start.index,
        attempt=start.attempt,
        round=start.round,
        state=State.RUNNING,
        ready=True,
        since=now,
        address=f"127.0.0.1:{port}" if start.role is Role.STORE else None,
    )
