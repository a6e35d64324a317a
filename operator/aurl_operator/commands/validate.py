"""`aurl validate`: is the job right? Nothing is started and nothing is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from aurl_operator.commands.run import JobFile, SetOption

if TYPE_CHECKING:
    from aurl_operator.api.spec import AurlTrainingJob


def validate(
    job: JobFile,
    settings: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Say whether a job is right, and if not, what is wrong in which line.

    All problems are listed at once, each as FILE:LINE: FIELD: what to do.
    The exit code is 0 or 3.

    \b
    Examples:
      aurl validate job.yaml
      aurl validate job.yaml --set nodes.max=3
      aurl validate job.yaml --json
    """
    from aurl_operator.api.load import load_job
    from aurl_trainer.errors import ConfigError

    try:
        found = load_job(job, settings or ())
    except ConfigError as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"valid": False, "problems": error.problems}, indent=1))
        raise typer.Exit(int(error.exit_code)) from None
    if as_json:
        typer.echo(json.dumps({"valid": True, "problems": []}, indent=1))
    else:
        typer.echo(f"{job} is valid: {outline(found)}")


def outline(job: AurlTrainingJob) -> str:
    """One line: what the job trains, and on how many ranks."""
    from aurl_operator.launch.experiment import experiment

    spec = job.spec
    nodes = f"{spec.nodes.min} to {spec.nodes.max} nodes"
    if spec.nodes.min == spec.nodes.max:
        nodes = f"{spec.nodes.max} node" + ("s" if spec.nodes.max > 1 else "")
    found = experiment(job)
    if found is None:
        program = "runs " + " ".join(spec.command or ())
    else:
        program = f"trains {found.engine.steps} steps of {found.engine.batch.global_batch} samples"
    return f"{job.metadata.name} {program} on {nodes} of {spec.procs_per_node} rank" + (
        "s" if spec.procs_per_node > 1 else ""
    )
