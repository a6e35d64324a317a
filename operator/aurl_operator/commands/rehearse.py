"""`aurl rehearse`: a run with losses on purpose, and what each of them cost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from aurl_operator.commands.run import (
    CapacityOption,
    JobFile,
    QuietOption,
    RunDirOption,
    SetOption,
    command_line,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from aurl_operator.backends.local.rehearsal import Event, Strike
    from aurl_trainer.contract import LedgerEntry

_EVENT = "NODE@step:N"


def rehearse(
    job: JobFile,
    kill: Annotated[
        list[str] | None, typer.Option(metavar=_EVENT, help="The machine vanishes (or `store@...`).")
    ] = None,
    preempt: Annotated[
        list[str] | None, typer.Option(metavar=_EVENT, help="The machine is taken back after a notice.")
    ] = None,
    freeze: Annotated[
        list[str] | None, typer.Option(metavar=_EVENT, help="The machine stays and does nothing.")
    ] = None,
    kill_rank: Annotated[
        list[str] | None,
        typer.Option(metavar="NODE/RANK@step:N", help="One training process is killed, by its local rank."),
    ] = None,
    run_dir: RunDirOption = None,
    settings: SetOption = None,
    capacity: CapacityOption = None,
    quiet: QuietOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as JSON at the end.")] = False,
) -> None:
    """Run a job and lose machines on purpose; see what each loss cost.

    An event strikes when its step is done (`@step:40`) or so long after
    the start (`@time:30s`). The table at the end says how long it took
    until the next step was done, and how many steps were done again.

    \b
    Examples:
      aurl rehearse job.yaml --kill worker-1@step:40
      aurl rehearse job.yaml --kill worker-1@step:40 --preempt worker-0@step:80
      aurl rehearse job.yaml --freeze worker-0@step:20 --kill store@time:30s
      aurl rehearse job.yaml --kill-rank worker-0/0@step:10 --json
    """
    from aurl_operator.backends.local.nodes import LocalNodes
    from aurl_operator.backends.local.rehearsal import Event, Kind, Rehearsal
    from aurl_operator.backends.local.rundir import read_ledger
    from aurl_operator.commands.console import console
    from aurl_operator.commands.local.running import Request, raise_for, run_locally
    from aurl_operator.commands.local.screen import Screen

    asked = {Kind.KILL: kill, Kind.PREEMPT: preempt, Kind.FREEZE: freeze, Kind.KILL_RANK: kill_rank}
    events = [Event.parse(kind, text) for kind, texts in asked.items() for text in texts or ()]
    shown = console(stderr=as_json)
    rehearsals: list[Rehearsal] = []

    def attach(nodes: LocalNodes, screen: Screen) -> list[Rehearsal]:
        rehearsals.append(Rehearsal(events, nodes, screen.say))
        return rehearsals

    finished = run_locally(Request(job, settings or (), run_dir, capacity, quiet), shown, attach)
    strikes = rehearsals[0].strikes if rehearsals else []
    missed = rehearsals[0].open if rehearsals else events
    rows = costs(strikes, missed, read_ledger(finished.run_dir))
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    elif rows:
        shown.print(_table(rows))
    raise_for(finished, command_line("run", job, run_dir, settings, capacity))


Row = dict[str, str | int | float | None]


def costs(strikes: Sequence[Strike], missed: Sequence[Event], ledger: Sequence[LedgerEntry]) -> list[Row]:
    """One row per event: what it was, which incident it became, and what that cost, from the ledger.

    An event's incident is the one that names its process, else the first one after it (the loss of one rank
    or of the store may be booked under other names).
    """
    from aurl_trainer.contract import NOTICED

    incidents = [e for e in ledger if e.kind == "incident" and e.cause not in NOTICED]
    recovered = {e.id: e for e in ledger if e.kind == "recovered"}
    rows: list[Row] = []
    for strike in strikes:
        named = [e for e in incidents if strike.uid in e.uids]
        later = [e for e in incidents if e.at >= strike.at]
        incident = next(iter(named or later), None)
        end = recovered.get(incident.id) if incident else None
        rows.append(
            {
                "event": str(strike.event),
                "struck": strike.name,
                "at_step": strike.step,
                "cause": incident.cause if incident else None,
                "recovery_seconds": end.recovery_seconds if end else None,
                "steps_redone": end.steps_redone if end else None,
                "lost_seconds": end.lost_seconds if end else None,
            }
        )
    rows += [{"event": str(event), "struck": None} for event in missed]
    return rows


def _table(rows: Sequence[Row]) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for name in ("event", "at step", "booked as", "next step after", "redone", "lost"):
        table.add_column(name, no_wrap=name == "event")
    for row in rows:
        if row["struck"] is None:
            table.add_row(str(row["event"]), "never", "the run was over before")
            continue
        table.add_row(
            str(row["event"]),
            _cell(row["at_step"]),
            _cell(row["cause"]),
            _cell(row["recovery_seconds"], " s"),
            _cell(row["steps_redone"], " steps"),
            _cell(row["lost_seconds"], " s"),
        )
    return table


def _cell(value: str | int | float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:.1f}{unit}" if isinstance(value, float) else f"{value}{unit}"
