"""`aurl status`: how a run is going, or how it went, on this machine or on a cluster."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aurl_operator.commands.cluster.options import ClusterOption, ContextOption, NamespaceOption

if TYPE_CHECKING:
    from rich.console import Console

    from aurl_operator.api.status import JobStatus


def status(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's directory, its name below runs/, or a job's name.")
    ],
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    cluster: ClusterOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show how a run is going, or how it went.

    \b
    Examples:
      aurl status runs/my-job
      aurl status my-job
      aurl status runs/my-job --json | jq .status.progress.step
      aurl status bach -n music            a job on a cluster
      aurl status bach --cluster           the same in the context's namespace
      watch -n 2 aurl status runs/my-job
    """
    from aurl_operator.api.status import JobStatus
    from aurl_operator.backends.local.rundir import held, read_state
    from aurl_operator.commands.console import console

    if cluster or namespace or context:
        from aurl_operator.commands.cluster.status import status_on_cluster

        status_on_cluster(str(run), namespace, context, as_json)
        return
    path = find_run(run)
    state = read_state(path) or {}
    running = held(path)
    if as_json:
        shown = {name: state.get(name) for name in ("run", "status", "processes", "at")}
        typer.echo(json.dumps({"directory": str(path), "running": running, **shown}, indent=1))
        return
    if "status" not in state:
        typer.echo(f"{path}: nothing has happened yet")
        return
    alive = f"running, seen {max(0, round(time.time() - state['at']))} s ago" if running else "not running"
    show(console(), f"{path} ({alive})", state, JobStatus.model_validate(state["status"]))


def find_run(run: Path) -> Path:
    """The run's directory, by its path or its name below `runs/`. Raises MissingError."""
    from aurl_operator.errors import MissingError
    from aurl_trainer.contract import RunFile

    for path in (run, Path("runs") / run):
        if (path / RunFile.STATE).is_file():
            return path
    raise MissingError(
        f"{run}: no run here (a run's directory has a {RunFile.STATE}; see runs/); "
        "for a job on a cluster add -n NAMESPACE or --cluster"
    )


def show(console: Console, title: str, state: dict[str, Any], now: JobStatus) -> None:
    """Prints a status: what it says of itself, and the incidents below."""
    from rich.table import Table

    # Not the table's own title, which is folded at the table's width.
    console.print(title, style="italic", soft_wrap=True)
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, text in _rows(state, now):
        table.add_row(name, text)
    console.print(table)
    if now.incidents:
        incidents = Table("at", "cause", "nodes", "step", "next step after", "lost", "message", box=None)
        for one in now.incidents:
            incidents.add_row(
                f"{datetime.fromisoformat(one.at).astimezone():%H:%M:%S}",
                one.cause,
                ", ".join(one.nodes) + (f" and {one.unnamed} more" if one.unnamed else ""),
                "" if one.step is None else str(one.step),
                "" if one.recovery_seconds is None else f"{one.recovery_seconds:.1f} s",
                "" if one.lost_seconds is None else f"{one.lost_seconds:.1f} s",
                one.message.partition("\n")[0],
            )
        console.print(incidents)


def _rows(state: dict[str, Any], now: JobStatus) -> list[tuple[str, str]]:
    from aurl_operator.commands.local.screen import duration

    rows = [("phase", now.phase.value + (f": {now.message}" if now.message else ""))]
    processes = ", ".join(p["name"] for p in state.get("processes", ()) if p["state"] != "ended")
    rows.append(
        (
            "nodes",
            f"{now.nodes.ready} of {now.nodes.desired} ready" + (f" ({processes})" if processes else ""),
        )
    )
    if (progress := now.progress) is not None:
        figures = [f"step {progress.step} of {progress.total}"]
        if progress.loss is not None:
            figures.append(f"loss {progress.loss:.4f}")
        if progress.val_loss is not None:
            figures.append(f"validation NLL {progress.val_loss:.4f}")
        if progress.tokens_per_second is not None:
            figures.append(f"{progress.tokens_per_second:,.0f} tokens/s")
        if progress.eta_seconds is not None:
            figures.append(f"{duration(progress.eta_seconds)} left")
        rows.append(("progress", ", ".join(figures)))
    kept = now.checkpoint
    if kept.last_durable_step is not None:
        name = f" ({kept.last_durable_name})" if kept.last_durable_name else ""
        rows.append(("checkpoint", f"step {kept.last_durable_step}{name}"))
    if kept.damaged:
        rows.append(("damaged", ", ".join(kept.damaged)))
    if now.restarts:
        rows.append(("incidents", ", ".join(f"{n} {cause}" for cause, n in sorted(now.restarts.items()))))
    if now.goodput.ratio:
        lost = ", ".join(f"{c} {s:.0f} s" for c, s in now.goodput.lost_seconds.items())
        rows.append(("goodput", f"{now.goodput.ratio:.0%}" + (f", lost to {lost}" if lost else "")))
    return rows
