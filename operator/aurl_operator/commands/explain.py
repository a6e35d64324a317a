"""`aurl explain`: what a job would start, and which rules would act when. Nothing is started."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aurl_operator.commands.run import JobFile, RunDirOption, SetOption

if TYPE_CHECKING:
    from rich.console import Console

    from aurl_operator.api.recovery import (
        Backoff,
        CrashBudget,
        HangBudget,
        LossBudget,
        MemoryBudget,
        Recovery,
    )
    from aurl_operator.api.spec import AurlTrainingJob


def explain(
    job: JobFile,
    run_dir: RunDirOption = None,
    settings: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what a job would start, and which rules would act when.

    Each process with its arguments, environment and log. Nothing is
    started or written; ports, ids and uids stand for those a run takes.

    \b
    Examples:
      aurl explain job.yaml
      aurl explain job.yaml --set nodes.max=3
      aurl explain job.yaml --json | jq '.processes[].argv'
    """
    from rich.console import Console

    from aurl_operator.api.load import load_job
    from aurl_operator.backends.local.preview import preview

    found = load_job(job, settings or ())
    folder = (run_dir or Path("runs") / found.metadata.name).resolve()
    processes: list[dict[str, Any]] = [
        {"name": p.start.name, "argv": list(p.command.argv), "env": dict(p.command.env), "log": str(p.log)}
        for p in preview(found, folder)
    ]
    rows = rules(found)
    if as_json:
        shown = {"directory": str(folder), "processes": processes, "rules": rows}
        typer.echo(json.dumps(shown, indent=1))
        return
    _show(Console(highlight=False), folder, processes, rows)


def rules(job: AurlTrainingJob) -> list[dict[str, str]]:
    """What would act on this job: `when`, `then`, and the `field` that says so."""
    spec = job.spec
    recovery = spec.recovery
    grace = f"{spec.termination_grace_period_seconds} s"
    rows = [
        _rule(
            "recovery.preemptions",
            "a node gets a notice (SIGTERM)",
            f"all save within {grace}; {_comes_back(recovery.preemptions)}",
        ),
        _rule("recovery.nodeLost", "a node, or the store, vanishes", _comes_back(recovery.node_lost)),
        _rule("recovery.crashes", "a rank fails by itself", _comes_back(recovery.crashes)),
        _rule("recovery.outOfMemory", "a node's memory is exhausted", _comes_back(recovery.out_of_memory)),
        _rule("recovery.hang", f"a rank makes no progress ({_limits(recovery)})", _comes_back(recovery.hang)),
    ]
    rows += [
        _rule(
            f"recovery.rules.{n}",
            f"exit code {', '.join(map(str, r.exit_codes))}",
            _meaning(r.cause, r.message),
        )
        for n, r in enumerate(recovery.rules)
    ]
    rows += [
        _rule("recovery", "exit code 86, or an error that trying again cannot mend", "the job fails at once"),
        _rule(
            "nodes",
            f"fewer than {spec.nodes.min} of {spec.nodes.max} nodes are ready",
            f"training waits; after {spec.start_timeout_seconds} s (startTimeoutSeconds) the run fails",
        ),
        _rule(
            "finishTimeoutSeconds",
            "the first node has finished well",
            f"the others have {spec.finish_timeout_seconds} s",
        ),
        _rule("suspend", "Ctrl-C once", f"all save and leave within {grace}; the same command goes on"),
    ]
    if spec.active_deadline_seconds is not None:
        rows.append(
            _rule(
                "activeDeadlineSeconds",
                f"the job has been active for {spec.active_deadline_seconds} s",
                "all save; the job fails",
            )
        )
    return rows


def _rule(field: str, when: str, then: str) -> dict[str, str]:
    return {"field": f"spec.{field}", "when": when, "then": then}


def _comes_back(budget: LossBudget | CrashBudget | HangBudget | MemoryBudget) -> str:
    wait = f"the node comes back after {_waits(budget.backoff)}"
    if budget.limit is None:
        return f"{wait}, however often"
    again = "without progress between them" if budget.refill == "Progress" else "in all"
    return f"{wait}; the job fails at number {budget.limit + 1} {again}"


def _waits(backoff: Backoff) -> str:
    first = backoff.initial_seconds
    second = min(backoff.max_seconds, first * backoff.factor)
    return f"{first} s, {second:g} s, ... at most {backoff.max_seconds} s"


def _limits(recovery: Recovery) -> str:
    return ", ".join(
        f"{phase.value} {seconds:g} s" for phase, seconds in recovery.hang.limits.seconds().items()
    )


def _meaning(cause: str, message: str) -> str:
    return ("the job fails at once" if cause == "FinalError" else f"counts as {cause}") + (
        f": {message}" if message else ""
    )


def _show(
    console: Console, folder: Path, processes: list[dict[str, Any]], rows: list[dict[str, str]]
) -> None:
    from rich.text import Text

    console.print(f"run directory: {folder}", soft_wrap=True, markup=False)
    common = _common(processes)
    for process in processes:
        console.print(f"\n{process['name']}", style="bold")
        console.print("  " + shlex.join(process["argv"]), soft_wrap=True, markup=False)
        for name, value in sorted(process["env"].items()):
            if name not in common:
                console.print(f"    {name}={value}", soft_wrap=True, markup=False)
        console.print(f"    output: {process['log']}", soft_wrap=True, markup=False, style="dim")
    if common:
        console.print("\nenvironment of all of them", style="bold")
        for name, value in sorted(common.items()):
            console.print(f"    {name}={value}", soft_wrap=True, markup=False)
    console.print("\nrules", style="bold")
    for row in rows:
        line = Text.assemble("  ", (row["when"], "bold"), " → ", row["then"], (f"  ({row['field']})", "dim"))
        console.print(line, soft_wrap=True)


def _common(processes: list[dict[str, Any]]) -> dict[str, str]:
    """Environment that all processes share, if there are several."""
    if len(processes) < 2:
        return {}
    first, *others = (p["env"].items() for p in processes)
    return {name: value for name, value in first if all((name, value) in o for o in others)}
