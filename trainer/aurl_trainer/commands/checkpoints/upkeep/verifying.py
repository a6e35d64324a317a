"""`aurl checkpoints verify`: whether what a run has saved is whole, and setting aside what is not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from aurl_trainer.commands.checkpoints.asked import AsJson, Checkpoint, open_store
from aurl_trainer.commands.checkpoints.screen import OUTSIDE, bytes_bar
from aurl_trainer.contract import ExitCode

if TYPE_CHECKING:
    from aurl_trainer.store.format.names import CheckpointName, Fence
    from aurl_trainer.store.run_store import RunStore
    from aurl_trainer.store.verify import Verdict

REMOVED = "the run itself removed it meanwhile"
"""What is said of a checkpoint that was there when they were listed."""


def verify(
    checkpoint: Checkpoint,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte and check every hash.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set damaged checkpoints aside, and take back mended ones.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a run's checkpoints, or one: manifests and sizes, with --deep every hash.

    Also those with a tag that are no part of the run's history any more.
    Ends with exit code 5 when one is damaged, and names each damaged item.
    With --repair damaged ones are set aside: no reader takes them any more,
    nothing of them is deleted, and the exit code is 0 if a whole one is left.
    What the run itself removes meanwhile is no damage.

    \b
    Examples:
      aurl checkpoints verify runs/bach
      aurl checkpoints verify gs://bucket/bach@step:1200 --deep
      aurl checkpoints verify s3://bucket/bach --deep --repair
    """
    from aurl_trainer.errors import RefusedError
    from aurl_trainer.store.choose import resolve
    from aurl_trainer.store.format.names import left_behind
    from aurl_trainer.store.verify import verify_records

    store = open_store(checkpoint.run)
    aside = store.aside()
    names = [resolve(store, checkpoint.which)] if checkpoint.said else _all(store, repair)
    outside = left_behind(names, store.fences())
    verdicts, removed = [], []
    for name in names:
        verdict = check(store, name, deep=deep, quiet=as_json)
        if verdict.good or not store.removed(name):
            verdicts.append(verdict)
        else:
            removed.append(name)
        if not as_json:
            _say(verdict, deep, removed=name in removed, outside=name in outside)
    if not verdicts:
        raise RefusedError(f"{store.location.uri}: {removed[-1]}: {REMOVED}; try again")
    records = list(verify_records(store))
    repaired = _repair(store, verdicts, deep) if repair else None
    newest = repaired.newest if repaired else None
    if as_json:
        found = [
            {
                "name": str(v.name), "step": v.name.step, "good": v.good, "problems": list(v.problems),
                "set_aside": v.name in store.aside(), "in_history": v.name not in outside,
            }
            for v in verdicts
        ]  # fmt: skip
        answer = {
            "uri": store.location.uri, "deep": deep, "checkpoints": found,
            "removed": [str(name) for name in removed], "records": records,
        }  # fmt: skip
        typer.echo(json.dumps(answer | ({"used": str(newest) if newest else None} if repair else {})))
    else:
        for line in records:
            typer.echo(f"a record is damaged, which does no harm: {line}")
        if repaired:
            _say_repaired(store, verdicts, aside, repaired, deep)
    bad = not all(v.good for v in verdicts)
    if bad and not (repair and newest):
        raise typer.Exit(ExitCode.CHECKPOINT)


def _all(store: RunStore, repair: bool) -> list[CheckpointName]:
    from aurl_trainer.errors import CheckpointError

    names = set(store.valid())
    aside = store.aside()
    more = {*store.tags().values()} - aside | (aside if repair else set())
    names |= more.intersection(store.committed())
    if not names:
        raise CheckpointError(f"{store.location.uri}: no checkpoint there")
    return sorted(names, key=lambda n: n.age)


def check(store: RunStore, name: CheckpointName, *, deep: bool, quiet: bool) -> Verdict:
    """Looks at one checkpoint; `deep` reads all of it, with a bar on a terminal unless `quiet`."""
    from aurl_trainer.store.verify import inspect
    from aurl_trainer.store.verify import verify as verify_one

    first = inspect(store, name)
    if not deep or not first.good or first.manifest is None:
        return first
    with bytes_bar(f"step {name.step}", first.manifest.stored_bytes, quiet=quiet) as advance:
        return verify_one(store, name, advance)


def _say(verdict: Verdict, deep: bool, *, removed: bool, outside: bool) -> None:
    if removed:
        typer.echo(f"step {verdict.name.step}: {REMOVED}")
        return
    good = "whole" if deep else "whole, as far as its manifest and sizes tell"
    of = f" ({OUTSIDE})" if outside else ""
    typer.echo(f"step {verdict.name.step}{of}: " + (good if verdict.good else "DAMAGED"))
    for problem in verdict.problems:
        typer.echo(f"  {problem}")


@dataclass(frozen=True)
class Repaired:
    """`newest`: what a reader takes now. `behind`: what the run went on without, since a generation began."""

    newest: CheckpointName | None
    behind: dict[CheckpointName, Fence]


def _repair(store: RunStore, verdicts: list[Verdict], deep: bool) -> Repaired:
    """Sets aside and takes back, but nothing that only its being set aside keeps from being removed."""
    from aurl_trainer.store.aside import set_aside, take_back
    from aurl_trainer.store.format.names import left_behind

    aside = store.aside()
    behind = left_behind([v.name for v in verdicts], store.fences())
    only_aside = behind.keys() - store.tags().values()
    for verdict in verdicts:
        if not verdict.good:
            set_aside(store.location, verdict.name, verdict.problems)
        elif verdict.name in aside and deep and verdict.name not in only_aside:
            take_back(store.location, verdict.name)
    names = store.valid()
    return Repaired(names[-1] if names else None, behind)


def _say_repaired(
    store: RunStore,
    verdicts: list[Verdict],
    before: frozenset[CheckpointName],
    repaired: Repaired,
    deep: bool,
) -> None:
    now = store.aside()
    for verdict in verdicts:
        name = verdict.name
        fence = repaired.behind.get(name)
        left = fence and (f"step {fence.resumed.step}" if fence.resumed else "the start")
        if name in now - before:
            typer.echo(f"step {name.step}: set aside; no reader takes it, nothing of it is deleted")
        elif name in before - now and left:
            typer.echo(f"step {name.step}: is whole again, and kept by its tag; the run went on from {left}")
        elif name in before - now:
            typer.echo(f"step {name.step}: is whole again and counts")
        elif verdict.good and name in now and deep and left:
            typer.echo(
                f"step {name.step}: is whole again, but the run went on from {left}, so it stays aside;"
            )
            typer.echo(f"  to use it: aurl checkpoints tag {store.location.uri}@{name} NAME, or copy it")
        elif verdict.good and name in now:
            typer.echo(f"step {name.step}: stays aside until --deep finds it whole")
    newest = repaired.newest
    used = "none is left that can be used" if newest is None else f"step {newest.step} ({newest}) is used"
    typer.echo(f"{store.location.uri}: {used}")
