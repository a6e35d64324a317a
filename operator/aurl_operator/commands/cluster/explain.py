"""`aurl explain` of a job on a cluster: where it stands, what it waits for, and which rules act when.

Not here: the rules in words (core/explain.py).
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

import typer


def explain_on_cluster(name: str, namespace: str | None, context: str | None, as_json: bool) -> None:
    """Prints it. Raises MissingError if there is no such job."""
    from aurl_operator.api.load import parse_object
    from aurl_operator.backends.kubernetes import reading
    from aurl_operator.backends.kubernetes.client.api import Api
    from aurl_operator.commands.console import console
    from aurl_operator.commands.explain import show_rules
    from aurl_operator.core.explain import explain
    from aurl_operator.core.observed import CLUSTER

    async def look() -> dict[str, Any]:
        async with await Api.connect(context) as api:
            return await reading.job(api, namespace or api.namespace, name)

    job = asyncio.run(look())
    found = explain(parse_object(job), CLUSTER)
    status = job.get("status") or {}
    now = {
        "phase": status.get("phase", "Pending"),
        "message": status.get("message", ""),
        "conditions": [c for c in status.get("conditions", []) if c.get("status") == "True"],
        "incidents": status.get("incidents", []),
    }
    if as_json:
        rules = [asdict(rule) for rule in found.rules]
        typer.echo(json.dumps({"name": name, "nodes": found.nodes, "now": now, "rules": rules}, indent=1))
        return
    screen = console()
    screen.print(f"{name}: {found.nodes}", soft_wrap=True)
    screen.print("\nnow", style="bold")
    words = f"  {now['phase']}" + (f": {now['message']}" if now["message"] else "")
    screen.print(words, soft_wrap=True)
    for condition in now["conditions"]:
        text = f"  {condition['type']}: {condition.get('reason', '')} {condition.get('message', '')}"
        screen.print(text.rstrip(), soft_wrap=True)
    for incident in now["incidents"]:
        text = f"  {incident['at']} {incident['cause']}: {', '.join(incident.get('nodes', []))}: "
        screen.print(text + incident.get("message", "").partition("\n")[0], soft_wrap=True)
    show_rules(screen, found)
