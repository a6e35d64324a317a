"""`aurl checkpoints export`: the weights of one checkpoint as one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aurl_trainer.commands.checkpoints.asked import AsJson, Checkpoint, open_store
from aurl_trainer.commands.checkpoints.screen import bytes_bar, size
from aurl_trainer.commands.trained import which_weights

if TYPE_CHECKING:
    from aurl_trainer.errors import DamagedError
    from aurl_trainer.store.format.manifest import Manifest
    from aurl_trainer.store.format.names import CheckpointName


def export(
    checkpoint: Checkpoint,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The file to write.")] = Path(
        "model.safetensors"
    ),
    weights: Annotated[
        str | None, typer.Option(help="model or average. Default: those the run is judged by.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the weights of one checkpoint to one safetensors file.

    On however many ranks it was saved, the file holds whole tensors under the
    model's own names, and metadata to build the model again: its
    configuration, vocabulary, context and tokenizer, the run and the step.
    Every hash is checked on the way; the file appears when it is whole.

    \b
    Examples:
      aurl checkpoints export runs/bach@best
      aurl checkpoints export s3://bucket/bach --to bach.safetensors
      aurl checkpoints export runs/bach@v12 --weights average --to ema.safetensors
    """
    from aurl_trainer.checkpoint.weights import part_of
    from aurl_trainer.errors import MissingError, RefusedError
    from aurl_trainer.store.choose import first_whole
    from aurl_trainer.store.export.described import NEEDED, describe
    from aurl_trainer.store.export.writing import export as export_part
    from aurl_trainer.store.export.writing import part_tensors

    wanted = which_weights(weights)
    if ":/" in str(to):  # what a path makes of a URL
        raise typer.BadParameter("a file on this machine; copy it from there", param_hint="--to")
    try:
        to.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise MissingError(f"{to.name[:40]}...: cannot be a file's name there: {error.strerror}") from None
    if to.is_dir() or (to.exists() and not overwrite):
        raise RefusedError(f"{to} is there; name another file with --to, or say --overwrite")
    if not to.parent.is_dir():
        raise MissingError(f"{to.parent}: no such folder")
    store = open_store(checkpoint.run)

    def write(manifest: Manifest) -> tuple[Manifest, int]:
        part = part_of(manifest, wanted)
        metadata = describe(manifest, part)
        with bytes_bar(f"step {manifest.step}", _content(manifest, part), quiet=as_json) as advance:
            written = export_part(store.location, manifest, part, metadata, to, advance)
        return manifest, written

    def damaged(name: CheckpointName, damage: DamagedError) -> None:
        typer.echo(f"step {name.step} is damaged and not exported: {damage}", err=True)

    manifest, written = first_whole(store, checkpoint.which, write, damaged)
    part = part_of(manifest, wanted)
    metadata = describe(manifest, part)
    tensors = len(part_tensors(manifest, part))
    if as_json:
        answer = {
            "file": str(to), "bytes": written, "tensors": tensors, "uri": store.location.uri,
            "checkpoint": manifest.name, "step": manifest.step, "weights": part, "metadata": metadata,
        }  # fmt: skip
        typer.echo(json.dumps(answer))
        return
    of = "averaged weights" if part == "average" else "weights"
    typer.echo(f"{to}: {of} of step {manifest.step}, {tensors} tensors, {size(written)}")
    unsaid = [name for name in NEEDED if name not in metadata]
    if unsaid:
        typer.echo(
            f"not in its metadata, since this checkpoint does not say it: {', '.join(unsaid)}", err=True
        )


def _content(manifest: Manifest, part: str) -> int:
    """Bytes of the part's content."""
    from aurl_trainer.store.export.writing import part_tensors

    return sum(t.content_bytes(c) for t in part_tensors(manifest, part).values() for c in t.chunks)
