"""`aurl checkpoints show` and `diff`: one checkpoint for people, and how two differ."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aurl_trainer.commands.checkpoints.asked import AsJson, Checkpoint, open_store
from aurl_trainer.commands.checkpoints.screen import Table, number, size, when

if TYPE_CHECKING:
    from aurl_trainer.config.reference import Reference
    from aurl_trainer.errors import DamagedError
    from aurl_trainer.store.format.manifest import Manifest
    from aurl_trainer.store.format.names import CheckpointName


def show(
    checkpoint: Checkpoint,
    tensors: Annotated[bool, typer.Option("--tensors", help="Name every tensor.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what one checkpoint holds; reads its manifest only.

    \b
    Examples:
      aurl checkpoints show runs/bach
      aurl checkpoints show s3://bucket/bach@best --tensors
      aurl checkpoints show runs/bach@v12 --json | jq .metrics
    """
    from aurl_trainer.store.catalog.entries import Entry
    from aurl_trainer.store.format.plain import decode
    from aurl_trainer.store.location.place import shown

    manifest, tags, uri = _read(checkpoint)
    if as_json:
        plain = manifest.model_dump(mode="json", exclude_defaults=True)
        typer.echo(shown(json.dumps({"uri": uri, "tags": tags, **plain})))
        return
    entry = Entry.of(manifest)
    versions = ", ".join(f"{k} {v}" for k, v in manifest.versions.items() if v)
    facts = {
        "checkpoint": manifest.name,
        "place": uri,
        "run": manifest.run,
        "save, step": f"{manifest.number}, {manifest.step}",
        "saved at": when(manifest.at),
        "saved by": f"{manifest.world} rank(s) of generation {manifest.generation}; {versions}",
        "size": f"{size(manifest.stored_bytes)} in {len(manifest.packs)} pack(s){_shared(manifest)}",
        "preset": entry.preset or "",
        "tags": ", ".join(tags),
        **{f"metric {k}": number(v) for k, v in manifest.metrics.items()},
    }
    for title, value in facts.items():
        if value:
            typer.echo(f"{title:<12} {value}")
    _show_config(decode(dict(entry.config)))
    _show_tensors(manifest, every=tensors)


def _shared(manifest: Manifest) -> str:
    own = manifest.checkpoint.folder
    earlier = [p for p in manifest.packs if not p.path.startswith(f"{own}/")]
    return f", {len(earlier)} of them of earlier saves" if earlier else ""


def _show_config(config: dict[str, Any]) -> None:
    from aurl_trainer.store.location.place import shown

    typer.echo("configuration")
    for part, value in config.items():
        if part != "versions" and value is not None:
            text = (
                ", ".join(f"{k} {_short(v)}" for k, v in value.items()) if isinstance(value, dict) else value
            )
            typer.echo(shown(f"  {part}: {text}"))


def _short(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _show_tensors(manifest: Manifest, *, every: bool) -> None:
    from aurl_trainer.store.catalog.difference import described

    typer.echo("tensors")
    counts: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for key, tensor in manifest.tensors.items():
        part = key.partition(".")[0]
        counts[part] += 1
        numbers[part] += math.prod(tensor.size)
        stored[part] += sum(c.bytes for c in tensor.chunks)
    for part in counts:
        typer.echo(
            f"  {part}: {counts[part]} tensors, {numbers[part]:,} numbers, {size(stored[part])} stored"
        )
    if every:
        made = Table("tensor", "type and size", "stored", "codec", left=2)
        for key, tensor in manifest.tensors.items():
            codecs = ", ".join(sorted({c.codec for c in tensor.chunks}))
            made.add_row(key, described(tensor), size(sum(c.bytes for c in tensor.chunks)), codecs)
        made.show()


def diff(
    first: Checkpoint,
    second: Checkpoint,
    as_json: AsJson = False,
) -> None:
    """Tell how two checkpoints differ: configuration, metrics, tensors.

    Tensors are compared by the hashes in the manifests; nothing else is read.

    \b
    Examples:
      aurl checkpoints diff runs/bach@step:100 runs/bach@latest
      aurl checkpoints diff s3://bucket/a@best s3://bucket/b@best --json
    """
    from aurl_trainer.store.catalog.difference import difference

    (a, _, _), (b, _, _) = _read(first), _read(second)
    found = difference(a, b)
    if as_json:
        answer = {
            "first": a.name,
            "second": b.name,
            "config": list(found.config),
            "metrics": {k: list(pair) for k, pair in found.metrics.items()},
            "tensors": found.tensors,
            "same_tensors": found.same_tensors,
            "cut_differently": list(found.unknown),
        }
        typer.echo(json.dumps(answer))
        return
    typer.echo(f"{a.name} -> {b.name}")
    for title, lines in (
        ("configuration", list(found.config)),
        (
            "metrics",
            [f"{k}: {number(x) or '-'} -> {number(y) or '-'}" for k, (x, y) in found.metrics.items()],
        ),
        ("tensors", [f"{k}: {text}" for k, text in found.tensors.items()]),
        ("cut into other chunks, so that hashes cannot tell", list(found.unknown)),
    ):
        if lines:
            typer.echo(title)
        for line in lines:
            typer.echo(f"  {line}")
    typer.echo(f"{found.same_tensors} tensors are the same")


def _read(checkpoint: Reference) -> tuple[Manifest, list[str], str]:
    """The manifest, its tags, and the run's place."""
    from aurl_trainer.store.choose import chosen

    store = open_store(checkpoint.run)

    def damaged(name: CheckpointName, damage: DamagedError) -> None:
        typer.echo(f"step {name.step} is damaged and passed over: {damage}", err=True)

    manifest = chosen(store, checkpoint.which, damaged)
    tags = [tag for tag, name in store.tags().items() if str(name) == manifest.name]
    return manifest, tags, store.location.uri
