"""`aurl resume`: a failed job on a cluster goes on from its checkpoint, under its own name."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated

import typer

from aurl_operator.commands.cluster.options import ContextOption, NamespaceOption


def resume(
    name: Annotated[str, typer.Argument(help="The job's name.")],
    namespace: NamespaceOption = None,
    context: ContextOption = None,
) -> None:
    """Let a failed job on a cluster go on from its newest checkpoint.

    Its budgets begin anew; what was counted and lost stays in its status.
    A failed local run goes on with `aurl run` and the same file.

    \b
    Examples:
      aurl resume bach
      aurl resume bach -n music --context spot-cluster
    """
    typer.echo(asyncio.run(_resume(name, namespace, context)))


async def _resume(name: str, namespace: str | None, context: str | None) -> str:
    from aurl_operator.api import names
    from aurl_operator.backends.kubernetes import reading
    from aurl_operator.backends.kubernetes.client import paths
    from aurl_operator.backends.kubernetes.client.api import Api
    from aurl_operator.errors import RefusedError

    async with await Api.connect(context) as api:
        where = namespace or api.namespace
        job = await reading.job(api, where, name)
        phase = (job.get("status") or {}).get("phase", "Pending")
        if phase != "Failed":
            raise RefusedError(f"{name} is {phase}; only a failed job can be resumed")
        token = {names.RESUME: secrets.token_hex(8)}
        version = job["metadata"]["resourceVersion"]
        await api.merge(
            paths.job(where, name), {"metadata": {"resourceVersion": version, "annotations": token}}
        )
    return f"{name} goes on from its newest checkpoint; see: kubectl -n {where} get atj {name} -w"
