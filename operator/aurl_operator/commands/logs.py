"""`aurl logs`: what a job's nodes print, on a cluster or on this machine, also when its pods are gone."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aurl_operator.commands.cluster.options import ClusterOption, ContextOption, NamespaceOption

if TYPE_CHECKING:
    from aurl_operator.backends.kubernetes.pod_log import Wanted


def logs(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A job's name, or a run's directory on this machine.")
    ],
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    cluster: ClusterOption = False,
    node: Annotated[
        int | None, typer.Option("--node", min=0, help="Only worker-N.", show_default=False)
    ] = None,
    store: Annotated[bool, typer.Option("--store", help="The rendezvous store instead of nodes.")] = False,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the job has ended, over losses too.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="Only what is newer: 30s, 10m or 2h.", show_default=False)
    ] = None,
    tail: Annotated[
        int | None, typer.Option(min=0, help="Only the last N lines of each process.", show_default=False)
    ] = None,
) -> None:
    """Show what a job's nodes print.

    On a cluster, what its pods print; when they are gone, the tails that are
    kept beside its checkpoints. On this machine, the logs of its run.

    \b
    Examples:
      aurl logs bach -n music
      aurl logs bach --cluster --node 1 --follow
      aurl logs bach -n music --since 10m
      aurl logs runs/my-job --tail 50
    """
    from aurl_operator.backends.kubernetes.pod_log import Wanted

    after = None if since is None else datetime.now(UTC) - _duration(since)
    wanted = Wanted(index=node, role="store" if store else "node", follow=follow, since=after, tail=tail)
    if cluster or namespace or context:
        asyncio.run(_of_cluster(str(run), namespace, context, wanted))
    else:
        _of_run(run, wanted)


def _duration(text: str) -> timedelta:
    from aurl_operator.errors import UsageError

    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        raise UsageError(f"--since {text}: expected a number and s, m, h or d, as in 10m")
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    return timedelta(**{units[found[2]]: int(found[1])})


async def _of_cluster(name: str, namespace: str | None, context: str | None, wanted: Wanted) -> None:
    from aurl_operator.backends.kubernetes import reading
    from aurl_operator.backends.kubernetes.client.api import Api

    async with await Api.connect(context) as api:
        async for line in reading.lines(api, namespace or api.namespace, name, wanted):
            _print(line.process, line.text)


def _of_run(run: Path, wanted: Wanted) -> None:
    from aurl_operator.backends.kubernetes.kept_logs import last
    from aurl_operator.commands.status import find_run
    from aurl_operator.errors import MissingError, UsageError
    from aurl_trainer.contract import RunFile

    if wanted.follow or wanted.since is not None:
        raise UsageError("--follow and --since are for jobs on a cluster; `aurl run` shows a run as it goes")
    folder = find_run(run) / RunFile.LOGS
    prefix = "store-" if wanted.role == "store" else "worker-"
    prefix += "" if wanted.index is None else f"{wanted.index}-"
    files = sorted(path for path in folder.glob("*.log") if path.name.startswith(prefix))
    if not files:
        raise MissingError(f"{folder}: no logs of {prefix.rstrip('-')} here")
    for file in files:
        for row in last(file.read_text(errors="replace"), wanted.tail):
            _print(file.stem, row)


def _print(process: str, text: str) -> None:
    typer.echo(f"{typer.style(process, fg='cyan')} {text}")
