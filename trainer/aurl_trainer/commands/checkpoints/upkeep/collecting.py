"""`aurl checkpoints gc`: removing what no rule keeps, beside a run or after it."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aurl_trainer.commands.checkpoints.asked import AsJson, Run, open_store
from aurl_trainer.commands.checkpoints.screen import size
from aurl_trainer.commands.checkpoints.upkeep.verifying import check

if TYPE_CHECKING:
    from aurl_trainer.config.checkpoint import KeepConfig
    from aurl_trainer.store.run_store import RunStore


def gc(
    run: Run,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; show what would go.")] = False,
    latest: Annotated[int | None, typer.Option(min=1, help="Keep the newest N.")] = None,
    best: Annotated[int | None, typer.Option(min=0, help="Keep the best N.")] = None,
    grace: Annotated[int | None, typer.Option(min=0, help="Keep what was kept so many seconds ago.")] = None,
    aside: Annotated[
        bool, typer.Option("--aside", help="Remove also what is set aside as damaged, unless tagged.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the checkpoints of a run that no rule keeps.

    The rules are the run's own `checkpoint.keep`, as its newest checkpoint
    records them; options change them. Tagged checkpoints stay, and, without
    --aside, those set aside. The run may go on meanwhile, and others may read.

    Before the first checkpoint goes, the newest that stays is read and checked
    to its last byte, so that none is removed that a resume could still need.
    That takes as long as loading it: 6 GB for 500 million parameters with their
    optimizer. Where nothing is to go, and with --dry-run, it is not read.

    On S3 it also ends the uploads of packs that killed processes had begun,
    which S3 keeps unseen and bills: those begun longer ago than a save may take
    (checkpoint.deadline) and than the grace; and of prepared music, after an
    hour. Small things that killed processes left an hour ago go as well: probes,
    music that no listing names, marks of checkpoints that are gone.

    \b
    Examples:
      aurl checkpoints gc runs/bach --dry-run
      aurl checkpoints gc s3://bucket/bach --latest 1 --best 1
    """
    from aurl_trainer.store.retention.passes import collect

    store = open_store(run)
    given = {"latest": latest, "best": best, "grace_seconds": grace}
    keep, save_seconds = _rules(store)
    keep = keep.model_copy(update={k: v for k, v in given.items() if v is not None})
    deep = functools.partial(check, deep=True, quiet=as_json)
    removed = collect(store, keep, save_seconds=save_seconds, check=deep, aside_too=aside, dry_run=dry_run)
    stay = sum(1 for n in store.valid() if n not in removed.checkpoints)
    if as_json:
        answer = {
            "uri": store.location.uri,
            "dry_run": dry_run,
            "keep": keep.model_dump(mode="json"),
            "removed": [str(n) for n in removed.checkpoints],
            "unfinished": [str(n) for n in removed.unfinished],
            "bytes": removed.bytes,
            "uploads": list(removed.uploads.objects),
            "uploads_problem": removed.uploads.problem,
        }
        typer.echo(json.dumps(answer))
        return
    would = "would go" if dry_run else "removed"
    for checkpoint in removed.checkpoints:
        typer.echo(f"{would}: step {checkpoint.step} ({checkpoint})")
    for checkpoint in removed.unfinished:
        typer.echo(f"{would}: what an interrupted save left ({checkpoint})")
    for name in removed.uploads.objects:
        typer.echo(f"{would}: what a killed upload left, unseen ({name})")
    if removed.uploads.problem is not None:
        typer.echo(f"what killed uploads left stays: {removed.uploads.problem}", err=True)
    typer.echo(f"{store.location.uri}: {would} {size(removed.bytes)}; {stay} checkpoints stay")


def _rules(store: RunStore) -> tuple[KeepConfig, float]:
    """The run's own rules, and the seconds that its saves may take; the defaults if no checkpoint tells.

    Raises CheckpointError for rules that this Aurl does not understand: by others too much might go.
    """
    from aurl_trainer.config.checkpoint import KeepConfig
    from aurl_trainer.config.document import Document
    from aurl_trainer.errors import CheckpointError, ConfigError, DamagedError
    from aurl_trainer.store.format.plain import decode
    from aurl_trainer.store.retention.passes import SAVE_SECONDS

    for name in reversed(store.valid()):
        try:
            extra: Any = decode(store.manifest(name).extra)
            found = extra["experiment"]["checkpoint"]
            document = Document(found["keep"], f"{store.location.uri}@v{name.number}: checkpoint.keep")
            seconds = float(found.get("deadline", SAVE_SECONDS))
        except (DamagedError, KeyError, TypeError, ValueError):
            continue
        try:
            return document.validate(KeepConfig), seconds
        except ConfigError as error:
            raise CheckpointError(
                f"{error.problems[0]}; another Aurl recorded what this run keeps: collect with that one. "
                "Nothing was removed"
            ) from None
    return KeepConfig(), SAVE_SECONDS
