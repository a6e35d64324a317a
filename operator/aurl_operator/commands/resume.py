"""`aurl resume`: a failed job on a cluster goes on from its checkpoint, under its own name."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated

import typer


def resume(
    name: Annotated[str, typer.Argument(help="The job's name.")],
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", help="Default: that of the kubeconfig's context.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="A context of the kubeconfig.")] = None,
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
    from aurl_operator.backends.kubernetes.client import paths
    from aurl_operator.backends.kubernetes.client.api import Api
    from aurl_operator.backends.kubernetes.client.errors import NotFoundError
    from aurl_operator.errors import MissingError, RefusedError

    async with await Api.connect(context) as api:
        where = namespace or api.namespace
        try:
            job = await api.get(paths.job(where, name))
        except NotFoundError:
            raise MissingError(f"no job {name} in namespace {where}; see: kubectl get atj -A") from None
        phase = (job.get("status") or {}).get("phase", "Pending")
        if phase != "Failed":
            raise RefusedError(f"{name} is {phase}; only a failed job can be resumed")
        token = {names.RESUME: secrets.token_hex(8)}
        version = job["metadata"]["resourceVersion"]
        await api.merge(
            paths.job(where, name), {"metadata": {"resourceVersion": version, "annotations": token}}
        )
    return f"{name} goes on from its newest checkpoint; see: kubectl -n {where} get atj {name} -w"
