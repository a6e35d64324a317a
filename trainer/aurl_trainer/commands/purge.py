"""`python -m aurl_trainer purge`: what the operator runs when a job is deleted with its checkpoints.

Only what a run itself writes below its URL is touched. Not here: retention while a run goes on (store/).
"""

from __future__ import annotations

from typing import Annotated

import typer


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


def purge(
    uri: Annotated[str, typer.Option(help="The run's checkpoints, as in s3://bucket/run.")],
    keep_best: Annotated[int, typer.Option(help="Leave so many of the best ones, and those with tags.")] = 0,
    by: Annotated[
        list[str] | None, typer.Option(help="A metric and its weight, as in val_nll=1; may be given again.")
    ] = None,
) -> None:
    """Delete a run's checkpoints, its records and its logs:

    python -m aurl_trainer purge --uri s3://bucket/run --keep-best 1 --by val_nll=1
    """
    from aurl_trainer.store.location.place import Location
    from aurl_trainer.store.retention.removal import all_but_best, everything

    location = Location(uri)
    if keep_best:
        left = all_but_best(location, keep_best, _weights(by or []))
        typer.echo(f"{len(left)} checkpoints stay: {', '.join(map(str, left)) or 'there were none'}")
        return
    everything(location)
    typer.echo(f"deleted the run at {location.uri}")
