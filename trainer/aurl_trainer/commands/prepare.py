"""`aurl prepare`: prepare a run's music now, and say what it has become.

Not here: how it is prepared (the room `data/`).
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aurl_trainer.config.document import Document, Place
from aurl_trainer.config.experiment import Experiment, given, load_config, resolve
from aurl_trainer.contract import Env
from aurl_trainer.errors import ConfigError

if TYPE_CHECKING:
    from aurl_trainer.data.dataset import Split
    from aurl_trainer.data.prepared import PreparedData
    from aurl_trainer.store.music import SharedMusic

_SHOWN = 10
"""Rejected files that are listed without --json."""


def prepare(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB",
            help="A job.yaml, an experiment's YAML file, or a preset's name; "
            "default: what AURL_EXPERIMENT holds.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, all rejected files in it.")
    ] = False,
) -> None:
    """Read, split and tokenize the music of a job, once, and show what came of it.

    A run does the same at its start. Done before, it tells early what is wrong
    with the music. What is prepared already is only opened.

    \b
    Examples:
      aurl prepare job.yaml
      aurl prepare quick_test
      aurl prepare job.yaml --json | jq -r '.rejected[].file'
    """
    experiment = given() if config is None else _experiment(config)

    from aurl_trainer.data.alive import marking
    from aurl_trainer.data.prepared import prepare as prepare_data

    began = time.monotonic()
    mark = os.environ.get(Env.ALIVE)
    prepared = prepare_data(
        experiment.data,
        experiment.seed,
        progress=not as_json,
        shared=shared_music(experiment),
        alive=marking(Path(mark)) if mark else lambda: None,
    )
    summary = _summary(experiment, prepared, time.monotonic() - began)
    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join(_lines(summary)))


def shared_music(experiment: Experiment) -> SharedMusic | None:
    """In a pod: where its run's nodes leave prepared music for each other."""
    if os.environ.get(Env.UPLOAD) != "1" or experiment.checkpoint.uri is None:
        return None
    from aurl_trainer.store.location.place import Location
    from aurl_trainer.store.music import SharedMusic

    return SharedMusic(Location(experiment.checkpoint.uri))


def _experiment(config: str) -> Experiment:
    """The experiment that a job, a file or a preset means. Raises ConfigError, naming file and line."""
    path = Path(config)
    if not path.is_file():
        if path.suffix in (".yaml", ".yml") and "/" in config:
            Document.read(path)  # says that there is no such file, rather than no such preset
        return load_config(config)
    document = Document.read(path)
    value = document.value
    place: Place = ()
    if isinstance(value, dict) and isinstance(value.get("spec"), dict):
        value, place = value["spec"].get("training"), ("spec", "training")
        if value is None:
            raise ConfigError(
                [document.problem(("spec",), "has no training, so there is no music to prepare")]
            )
    if not isinstance(value, dict):
        raise ConfigError([document.problem(place, "expected an experiment, or {preset, overrides}")])
    try:
        plain = resolve(value)
    except ConfigError as error:
        raise ConfigError([document.problem(place, problem) for problem in error.problems]) from None
    return document.validate(Experiment, plain, place)


def _summary(experiment: Experiment, prepared: PreparedData, seconds: float) -> dict[str, Any]:
    from aurl_trainer.data.dataset import LazyMidiDataset

    def of(split: Split) -> dict[str, Any]:
        dataset = LazyMidiDataset(prepared, split)
        return {
            "pieces": sum(piece.split == split for piece in prepared.pieces),
            "samples": len(dataset),
            "tokens": int(dataset.targets.sum()),
            "filled": round(dataset.filled, 4),
        }

    return {
        "folder": str(prepared.folder),
        "key": prepared.key,
        "seconds": round(seconds, 2),
        "tokenizer": experiment.data.tokenizer.type,
        "vocab_size": prepared.vocab_size,
        "sequence_length": prepared.sequence_length,
        "transpose": experiment.data.transpose,
        "split_by": experiment.data.split.by,
        "train": of("train"),
        "validation": of("validation"),
        "warnings": list(prepared.warnings),
        "rejected": [asdict(rejected) for rejected in prepared.rejected],
    }


def _lines(summary: dict[str, Any]) -> list[str]:
    """The summary for people."""
    lines = [f"Prepared in {summary['seconds']:.1f} s: {summary['folder']}"]
    lines.append(f"  vocabulary  {summary['vocab_size']:,} tokens ({summary['tokenizer']})")
    for name in ("train", "validation"):
        split = summary[name]
        lines.append(
            f"  {name:<11} {split['pieces']:,} pieces, {split['tokens']:,} tokens in {split['samples']:,} "
            f"samples of {summary['sequence_length']:,} ({1 - split['filled']:.0%} padding)"
        )
    if summary["transpose"]:
        lines[-2] += f", transposed by up to {summary['transpose']} semitones"
    lines += [f"  note        {warning}" for warning in summary["warnings"]]
    rejected = summary["rejected"]
    lines.append(
        f"  rejected    {len(rejected):,} file{'' if len(rejected) == 1 else 's'}" + (":" if rejected else "")
    )
    lines += [f"    {item['file']}: {item['reason']}" for item in rejected[:_SHOWN]]
    if len(rejected) > _SHOWN:
        lines.append(f"    and {len(rejected) - _SHOWN:,} more, which --json lists")
    return lines
