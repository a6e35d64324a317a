"""`aurl checkpoints copy` and `promote`: one checkpoint to another place, whole and verified."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from aurl_trainer.commands.checkpoints.asked import AsJson, Checkpoint, open_store
from aurl_trainer.commands.checkpoints.screen import bytes_bar, size

if TYPE_CHECKING:
    from aurl_trainer.config.reference import Reference
    from aurl_trainer.store.copying import Copied
    from aurl_trainer.store.run_store import RunStore

Target = Annotated[str, typer.Argument(metavar="URL", help="The place to copy to, any fsspec URL or path.")]


def copy(checkpoint: Checkpoint, url: Target, as_json: AsJson = False) -> None:
    """Copy one checkpoint to another place, from where a run can go on.

    All packs that it refers to are copied, every hash is checked on the way,
    and the copy counts only when all is there. The same command goes on with
    a copy that was interrupted. Tags stay behind; see promote.

    \b
    Examples:
      aurl checkpoints copy runs/bach@best s3://bucket/bach
      aurl checkpoints copy s3://bucket/bach@v12 gs://other/bach
    """
    target, done = _copy(checkpoint, url, any_run=False, quiet=as_json)
    _say(target, done, None, as_json)


def promote(
    checkpoint: Checkpoint,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Where promoted checkpoints are collected.")],
    tag: Annotated[str, typer.Option(help="What it is called there.")] = "promoted",
    as_json: AsJson = False,
) -> None:
    """Copy one checkpoint to a place that collects them, and give it a tag there.

    The place may collect checkpoints of any runs; they are told apart by their
    tags, which move to what is promoted last and keep it for ever.

    \b
    Examples:
      aurl checkpoints promote runs/bach@best --to s3://models/bach --tag production
      aurl sample s3://models/bach@production
    """
    from aurl_trainer.config.reference import tag_problem
    from aurl_trainer.store.tags import set_tag

    problem = tag_problem(tag)
    if problem is not None:
        raise typer.BadParameter(problem, param_hint="--tag")
    target, done = _copy(checkpoint, to, any_run=True, quiet=as_json)
    set_tag(target, tag, done.name)
    _say(target, done, tag, as_json)


def _copy(checkpoint: Reference, url: str, *, any_run: bool, quiet: bool) -> tuple[RunStore, Copied]:
    from aurl_trainer.store.choose import resolve, target
    from aurl_trainer.store.copying import copy as copy_one
    from aurl_trainer.store.run_store import RunStore

    source = open_store(checkpoint.run)
    there = RunStore(target(url))
    name = resolve(source, checkpoint.which)
    total = source.manifest(name).stored_bytes
    with bytes_bar(f"step {name.step}", total, quiet=quiet) as advance:
        return there, copy_one(source, name, there, advance, any_run=any_run)


def _say(target: RunStore, done: Copied, tag: str | None, as_json: bool) -> None:
    uri = target.location.uri
    if as_json:
        answer = {
            "uri": uri, "checkpoint": str(done.name), "tag": tag, "packs_written": done.written,
            "packs_there": done.there, "bytes": done.bytes,
        }  # fmt: skip
        typer.echo(json.dumps(answer))
        return
    there = f", {done.there} packs were there" if done.there else ""
    typer.echo(f"{uri}@{tag or done.name}: step {done.name.step}, {size(done.bytes)} copied{there}")
