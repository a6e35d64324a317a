"""`python -m aurl_trainer purge`: what the operator runs when a job is deleted with its checkpoints.

Only what a run itself writes below its URL is touched. Not here: retention while a run goes on (store/).
"""

from __future__ import annotations

from typing import Annotated

import typer


def purge(
    uri: Annotated[str, typer.Option(help="The run's checkpoints, as in s3://bucket/run.")],
    keep_best: Annotated[int, typer.Option(help="Leave so many of the best ones.")] = 0,
) -> None:
    """Delete a run's checkpoints, its records and its logs:

    python -m aurl_trainer purge --uri s3://bucket/run --keep-best 1
    """
    from aurl_trainer.store.location import Location
    from aurl_trainer.store.removal import all_but_best, everything

    location = Location(uri)
    if keep_best:
        left = all_but_best(location, keep_best)
        typer.echo(f"{len(left)} checkpoints stay: {', '.join(map(str, left)) or 'there were none'}")
        return
    everything(location)
    typer.echo(f"deleted the run at {location.uri}")
