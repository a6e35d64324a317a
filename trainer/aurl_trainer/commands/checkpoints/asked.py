"""What the commands are asked for: references, and the stores that they lead to.

Not here: what references mean (config/reference.py, store/choose.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aurl_trainer.config.reference import Reference
from aurl_trainer.errors import ConfigError

if TYPE_CHECKING:
    from aurl_trainer.store.run_store import RunStore


def reference(text: str) -> Reference:
    """The reference in an argument. Raises typer.BadParameter."""
    try:
        return Reference.parse(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


Checkpoint = Annotated[
    Reference,
    typer.Argument(
        metavar="RUN[@WHICH]",
        parser=reference,
        help="A run's directory, URL or name; after an @ which checkpoint: latest, best, best:METRIC, "
        "step:1200, v12, or a tag.",
    ),
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's directory, checkpoint URL, or name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def open_store(run: str) -> RunStore:
    """The checkpoints of a run. Raises MissingError, CheckpointError."""
    from aurl_trainer.store.choose import checkpoints_of
    from aurl_trainer.store.location.place import Location
    from aurl_trainer.store.run_store import RunStore

    return RunStore(Location(checkpoints_of(run)))
