"""`aurl status` of a job on a cluster: the status that its operator keeps, and its pods."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import typer


def status_on_cluster(name: str, namespace: str | None, context: str | None, as_json: bool) -> None:
    """Prints it. Raises MissingError if there is no such job."""
    from aurl_operator.api.status import JobStatus
    from aurl_operator.backends.kubernetes import reading
    from aurl_operator.backends.kubernetes.client.api import Api
    from aurl_operator.backends.kubernetes.observe.process import identity
    from aurl_operator.commands.console import console
    from aurl_operator.commands.status import show
    from aurl_operator.core.observed import Role

    async def look() -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
        async with await Api.connect(context) as api:
            where = namespace or api.namespace
            return where, await reading.job(api, where, name), await reading.pods(api, where, name)

    where, job, pods = asyncio.run(look())
    found = {key: value for key, value in (job.get("status") or {}).items() if key != "memory"}
    if as_json:
        typer.echo(json.dumps({"namespace": where, "name": name, "status": found}, indent=1))
        return
    if not found:
        typer.echo(f"{where}/{name}: no operator has looked at it yet; is one installed? (docs/tour.md)")
        return
    running = [
        {"name": pod["metadata"]["name"].removeprefix(f"{name}-"), "state": pod["status"].get("phase", "")}
        for pod in pods
        if (who := identity(pod)) is not None
        and who.role is Role.NODE
        and pod["status"].get("phase") in ("Pending", "Running")
    ]
    title = f"{where}/{name} ({len(pods)} pods)"
    show(console(), title, {"processes": running}, JobStatus.model_validate(found))
