"""`aurl explain`: what a job would start, and which rules would act when. Nothing is started."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aurl_operator.commands.cluster.options import ClusterOption, ContextOption, NamespaceOption
from aurl_operator.commands.run import RunDirOption, SetOption
from aurl_operator.core.observed import Role

if TYPE_CHECKING:
    from rich.console import Console

    from aurl_operator.core.explain import Explanation


def explain(
    job: Annotated[
        Path,
        typer.Argument(
            metavar="JOB", help="The job's YAML file, or its name on a cluster.", show_default=False
        ),
    ],
    run_dir: RunDirOption = None,
    settings: SetOption = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    cluster: ClusterOption = False,
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
      aurl explain bach -n music           a job on a cluster: where it stands, too
    """
    from aurl_operator.api.load import load_job
    from aurl_operator.backends.local.preview import preview
    from aurl_operator.commands.console import console
    from aurl_operator.core.explain import explain as explain_rules
    from aurl_operator.core.observed import LOCAL

    if cluster or namespace or context:
        from aurl_operator.commands.cluster.explain import explain_on_cluster

        explain_on_cluster(str(job), namespace, context, as_json)
        return
    found = load_job(job, settings or ())
    folder = (run_dir or Path("runs") / found.metadata.name).resolve()
    processes: list[dict[str, Any]] = [
        {
            "name": p.start.name,
            "role": p.start.role,
            "argv": list(p.command.argv),
            "env": dict(p.command.env),
            "log": str(p.log),
        }
        for p in preview(found, folder)
    ]
    explanation = explain_rules(found, LOCAL)
    if as_json:
        rules = [asdict(rule) for rule in explanation.rules]
        shown = {"directory": str(folder), "nodes": explanation.nodes, "processes": processes, "rules": rules}
        typer.echo(json.dumps(shown, indent=1))
        return
    _show(console(), folder, processes, explanation)


def _show(console: Console, folder: Path, processes: list[dict[str, Any]], found: Explanation) -> None:
    console.print(f"{found.nodes}; run directory: {folder}", soft_wrap=True)
    everybodys = _common(processes)
    nodes = _common([p for p in processes if p["role"] == Role.NODE])
    for process in processes:
        console.print(f"\n{process['name']}", style="bold")
        console.print("  " + shlex.join(process["argv"]), soft_wrap=True)
        told = everybodys | nodes if process["role"] == Role.NODE else everybodys
        _show_environment(console, {k: v for k, v in process["env"].items() if k not in told})
        console.print(f"    output: {process['log']}", soft_wrap=True, style="dim")
    only = {name: value for name, value in nodes.items() if name not in everybodys}
    for title, environment in (("of all nodes", only), ("of all processes", everybodys)):
        if environment:
            console.print(f"\nenvironment {title}", style="bold")
            _show_environment(console, environment)
    show_rules(console, found)


def _show_environment(console: Console, environment: dict[str, str]) -> None:
    for name, value in sorted(environment.items()):
        console.print(f"    {name}={value}", soft_wrap=True)


def show_rules(console: Console, found: Explanation) -> None:
    """The rules, one a line."""
    from rich.text import Text

    console.print("\nrules", style="bold")
    for rule in found.rules:
        line = Text.assemble("  ", (f"{rule.name:<15}", "bold"), f" {rule.when} → {rule.then}")
        console.print(line, soft_wrap=True)


def _common(processes: list[dict[str, Any]]) -> dict[str, str]:
    """Environment that all of `processes` share, if they are several."""
    if len(processes) < 2:
        return {}
    first, *others = (p["env"].items() for p in processes)
    return {name: value for name, value in first if all((name, value) in o for o in others)}
