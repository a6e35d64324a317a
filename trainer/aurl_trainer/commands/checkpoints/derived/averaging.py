"""`aurl checkpoints average`: the mean of the weights of several checkpoints, measured and saved.

Not here: the arithmetic and the saving (checkpoint/averaging.py). Importing this loads no torch.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aurl_trainer.commands.checkpoints.asked import AsJson, open_store, reference
from aurl_trainer.commands.checkpoints.screen import bytes_bar
from aurl_trainer.commands.trained import which_weights
from aurl_trainer.config.reference import Exact, Reference
from aurl_trainer.contract import RunFile
from aurl_trainer.errors import CheckpointError, ConfigError, DataError, MissingError

if TYPE_CHECKING:
    import torch

    from aurl_trainer.checkpoint.averaging import Parent
    from aurl_trainer.checkpoint.weights import Weights


def average(
    checkpoints: Annotated[
        list[Reference],
        typer.Argument(
            metavar="RUN[@WHICH]...",
            parser=reference,
            help="Checkpoints of one or more runs; or one run, with --last.",
        ),
    ],
    last: Annotated[
        int | None,
        typer.Option("--last", min=2, metavar="K", help="The newest K checkpoints of RUN, one of each step."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="PLACE", help="Where to save it. Default: RUN-average-STEP, beside the run."
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="model or average, of each. Default: those the run is judged by.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Measure on the first so many held-out samples. Default: as the run does "
            "(monitor.evaluate_samples). On another number it is shown, and not recorded.",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Whether to measure the mean and its parents.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Average the weights of several checkpoints into one of its own.

    The mean is measured on the held-out pieces beside its parents, where the
    run's music is there, and saved in a place of its own, which sample,
    evaluate, export and initFrom read as any other. All must be of one model
    and one tokenizer. Whole numbers are taken from the newest.

    \b
    Examples:
      aurl checkpoints average runs/bach --last 5
      aurl checkpoints average runs/a@best runs/b@best --to runs/soup
      aurl sample runs/bach-average-1200
    """
    from aurl_trainer.checkpoint.averaging import check_alike, check_free, in_order, mean, save_mean
    from aurl_trainer.commands.held_out import finite
    from aurl_trainer.store.location.place import shown

    parents = in_order(_parents(checkpoints, last, which_weights(weights)))
    newest = parents[-1]
    check_alike(parents)
    place = to if to is not None else beside(newest.place, newest.manifest.step)
    check_free(place)
    content = sum(t.content_bytes(c) for p in parents for t in p.tensors.values() for c in t.chunks)
    with bytes_bar(f"{len(parents)} checkpoints", content, quiet=as_json) as advance:
        made = mean(parents, advance)
    found = _measured(parents, made, samples) if measure else Measured(why_not="not asked for")
    nlls = found.nlls
    if found.recorded:
        saved = save_mean(made, parents, place, nlls[:-1], nlls[-1])
    else:
        saved = save_mean(made, parents, place, (), None)
    if as_json:
        rows = [
            {
                "uri": p.location.uri,
                "checkpoint": p.manifest.name,
                "step": p.manifest.step,
                "weights": p.weights,
                "val_nll": finite(nlls[i]) if nlls else None,
            }
            for i, p in enumerate(parents)
        ]
        answer = {
            "uri": shown(place), "checkpoint": saved.name, "step": saved.step, "parents": rows,
            "val_nll": finite(nlls[-1]) if nlls else None, "samples": found.samples,
            "recorded": found.recorded, "not_measured": found.why_not,
        }  # fmt: skip
        typer.echo(json.dumps(answer, allow_nan=False))
        return
    for i, parent in enumerate(parents):
        typer.echo(f"{parent}{f'  {nlls[i]:.4f} nats/token' if nlls else ''}")
    typer.echo(
        f"their mean{f'  {nlls[-1]:.4f} nats/token' if nlls else f' is not measured: {found.why_not}'}"
    )
    if nlls and not found.recorded:
        said = f"measured on {found.samples} of the held-out samples, and not recorded: "
        others = "the run validates on another number of them"
        typer.echo(said + (others if all(map(math.isfinite, nlls)) else "not all are numbers"))
    typer.echo(f"saved at {shown(place)}, as step {saved.step}")


def _parents(checkpoints: Sequence[Reference], last: int | None, weights: Weights) -> list[Parent]:
    """The checkpoints that are meant, each once. Raises typer.BadParameter, CheckpointError."""
    from aurl_trainer.checkpoint.averaging import Parent
    from aurl_trainer.checkpoint.weights import part_of
    from aurl_trainer.store import choose
    from aurl_trainer.store.location.place import Location, shown
    from aurl_trainer.store.run_store import RunStore

    chosen = list(checkpoints)
    if last is not None:
        if len(chosen) != 1 or chosen[0].said:
            raise typer.BadParameter("goes with one RUN, without @", param_hint="--last")
        store = open_store(chosen[0].run)
        # A step may be saved twice, as after a loss at a step with more to do: the same weights, not two.
        names = list({name.step: name for name in store.valid()}.values())[-last:]
        if len(names) < last:
            raise CheckpointError(f"{store.location.uri}: has checkpoints of {len(names)} steps, not {last}")
        chosen = [Reference(chosen[0].run, Exact(str(name)), True) for name in names]
    found: dict[tuple[str, str], Parent] = {}
    for wanted in chosen:
        place = choose.checkpoints_of(wanted.run)
        store = RunStore(Location(place))
        manifest = store.manifest(choose.resolve(store, wanted.which))  # none is passed over
        parent = Parent(store.location, manifest, part_of(manifest, weights), place)
        if found.setdefault((place, manifest.name), parent) is not parent:
            named = f"{shown(str(wanted))} is {parent}, which was named already"
            raise typer.BadParameter(named, param_hint="RUN@WHICH")
    if len(found) < 2:
        raise typer.BadParameter("name at least two checkpoints, or say --last K", param_hint="RUN@WHICH")
    return list(found.values())


def beside(uri: str, step: int) -> str:
    """Where a mean goes if nobody says: beside the run whose checkpoints are at `uri`."""
    base = uri.rstrip("/").removesuffix(f"/{RunFile.CHECKPOINTS}")
    protocol, is_url, path = base.partition("://")
    if is_url and "/" not in path.strip("/") and protocol != "file":
        return f"{base}/average-{step}"  # a bucket has nothing beside it
    if not is_url and base == RunFile.CHECKPOINTS:
        base = str(Path.cwd())
    return f"{base}-average-{step}"


@dataclass(frozen=True)
class Measured:
    """The NLLs of the parents and, last, of their mean, on the first `samples` held-out samples.

    `recorded`: the run measures on as many, and all are numbers, so these may stand beside its own `val_nll`,
    by which checkpoints are compared and kept. Nothing measured: `why_not`.
    """

    nlls: tuple[float, ...] = ()
    samples: int | None = None
    recorded: bool = False
    why_not: str | None = None


def _measured(parents: Sequence[Parent], made: dict[str, torch.Tensor], samples: int | None) -> Measured:
    """On what the newest's run holds out; not at all if its music is not here, or has become other music."""
    from aurl_trainer.checkpoint.loading import load_manifest
    from aurl_trainer.checkpoint.weights import vocabulary_of
    from aurl_trainer.commands.held_out import held_out_count, measure_held_out
    from aurl_trainer.commands.trained import build, other_music

    newest = parents[-1]
    try:
        built = build(newest.manifest, newest.location.uri, sys.stderr.isatty())
    except (CheckpointError, ConfigError, DataError, MissingError) as error:
        return Measured(why_not=str(error))
    if built.vocabulary.same(vocabulary_of(newest.manifest)) is False:
        return Measured(why_not="the music that is here now gives another tokenizer than theirs")
    if other := other_music(newest.manifest, built.prepared):
        return Measured(why_not=f"the music that is here now is not theirs: {'; '.join(other)}")
    usual = held_out_count(built, built.experiment.monitor.evaluate_samples)
    count = held_out_count(built, samples) if samples is not None else usual
    nlls = []
    for parent in parents:
        load_manifest(parent.location, parent.manifest, built.model, parent.weights)
        nlls.append(measure_held_out(built, count, f"step {parent.manifest.step}").nll)
    built.model.load_state_dict(made)
    nlls.append(measure_held_out(built, count, "their mean").nll)
    return Measured(tuple(nlls), count, recorded=count == usual and all(map(math.isfinite, nlls)))
