"""`python -m aurl_trainer purge`: what the operator runs when a job is deleted with its checkpoints.

Only what a run itself writes below its URL is touched, and only at a place that is the run's own. What cannot
be done is told to the operator by a termination record. Not here: retention while a run goes on (store/).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from aurl_trainer.contract import Cause, Env, Termination
from aurl_trainer.errors import AurlTrainerError, RefusedError


def _weights(texts: list[str]) -> dict[str, float]:
    """Metrics and weights; without any, what `best` goes by. Raises typer.BadParameter."""
    from aurl_trainer.config.checkpoint import KeepConfig

    found = {}
    for text in texts:
        name, _, weight = text.rpartition("=")
        try:
            found[name] = float(weight)
        except ValueError:
            raise typer.BadParameter(f"{text}: expected METRIC=WEIGHT", param_hint="--by") from None
    return found or KeepConfig().by


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """Leaves a record of an error, where somebody asks for one, and raises it."""
    try:
        yield
    except AurlTrainerError as error:
        if file := os.environ.get(Env.TERMINATION_LOG):
            cause = Cause.FINAL_ERROR if isinstance(error, RefusedError) else Cause.CRASH
            record = Termination(cause, str(error), int(error.exit_code), time.time())
            with contextlib.suppress(OSError):
                Path(file).write_text(record.to_json())
        raise


def purge(
    uri: Annotated[str, typer.Option(help="The run's checkpoints, as in s3://bucket/run.")],
    run: Annotated[str, typer.Option(envvar=Env.RUN_ID, help="Whose they are: the id of the job or run.")],
    keep_best: Annotated[int, typer.Option(help="Leave so many of the best ones, and those with tags.")] = 0,
    by: Annotated[
        list[str] | None, typer.Option(help="A metric and its weight, as in val_nll=1; may be given again.")
    ] = None,
) -> None:
    """Delete a run's checkpoints, its records and its logs.

    What belongs to another run, which trained there last, stays (exit code 6).

    \b
    Examples:
      python -m aurl_trainer purge --uri s3://bucket/bach --run 7c1e5f0a
      python -m aurl_trainer purge --uri s3://bucket/bach --run 7c1e5f0a --keep-best 1 --by val_nll=1
    """
    from aurl_trainer.store.location.place import Location
    from aurl_trainer.store.retention.removal import all_but_best, everything

    weights = _weights(by or [])
    with _telling():
        location = Location(uri)
        if keep_best:
            left = all_but_best(location, run, keep_best, weights)
            typer.echo(f"{len(left)} checkpoints stay: {', '.join(map(str, left)) or 'there were none'}")
            return
        everything(location, run)
    typer.echo(f"deleted the run at {location.uri}")
