"""`aurl checkpoints tag`: names that people give to checkpoints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from aurl_trainer.commands.checkpoints.asked import AsJson, Checkpoint, open_store

if TYPE_CHECKING:
    from aurl_trainer.store.format.names import CheckpointName


def tag(
    checkpoint: Checkpoint,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The tag; without it, the tags are shown.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the tag NAME of the run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a checkpoint a name of its own, or show a run's tags.

    What has a tag is kept for ever, whatever `keep` says, and is found as
    RUN@NAME. A tag that exists moves to the checkpoint that is named now.

    \b
    Examples:
      aurl checkpoints tag runs/bach@best for-the-paper
      aurl checkpoints tag s3://bucket/bach@step:1200 production
      aurl checkpoints tag runs/bach production --delete
      aurl checkpoints tag runs/bach
    """
    from aurl_trainer.store.choose import resolve
    from aurl_trainer.store.tags import delete_tag, set_tag

    store = open_store(checkpoint.run)
    if name is None:
        if delete:
            raise typer.BadParameter("name the tag to delete", param_hint="NAME")
        tags = {t: str(n) for t, n in store.tags().items()}
        if as_json:
            typer.echo(json.dumps({"uri": store.location.uri, "tags": tags}))
        for line in [] if as_json else [f"{t}  {n}" for t, n in tags.items()] or ["no tags"]:
            typer.echo(line)
        return
    if delete:
        if checkpoint.said:
            raise typer.BadParameter("a tag is deleted of a run: leave out @...", param_hint="RUN")
        was: CheckpointName | None = delete_tag(store, name)
        now = None
    else:
        now = resolve(store, checkpoint.which)
        was = set_tag(store, name, now)
    if as_json:
        answer = {"uri": store.location.uri, "tag": name, "checkpoint": _text(now), "before": _text(was)}
        typer.echo(json.dumps(answer))
    elif now is None:
        typer.echo(f"{name} is deleted; it named step {was.step if was else '?'} ({was})")
    else:
        moved = f"; it named step {was.step} ({was})" if was is not None and was != now else ""
        typer.echo(f"{name} names step {now.step} ({now}){moved}")


def _text(value: object) -> str | None:
    return None if value is None else str(value)
