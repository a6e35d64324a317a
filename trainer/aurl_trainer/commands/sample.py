"""`aurl sample`: music from a trained model.

Not here: the sampling (music/sampled.py). Importing this loads no torch.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from aurl_trainer.commands.checkpoints.asked import Checkpoint
from aurl_trainer.contract import RunFile


def sample(
    checkpoint: Checkpoint,
    weights: Annotated[
        str | None, typer.Option(help="model or average. Default: those the run is judged by.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", min=1, max=64, help="Number of pieces.")] = None,
    prompt: Annotated[Path | None, typer.Option(help="A MIDI file whose music the pieces continue.")] = None,
    prompt_bars: Annotated[
        int | None, typer.Option(min=1, help="Take only so many bars of the prompt.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Longest length of what is sampled.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.01, help="Below 1 is safer, above 1 is wilder.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Choose among the k likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0.01, max=1.0, help="Choose among tokens that hold this probability.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same pieces. Default: the run's.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files. Default: samples/ in the run's directory.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write music with a trained model, as MIDI, WAV and MP3.

    What is not given is as in the run's configuration. Without a synthesizer
    there is only MIDI, and a line says what to install.

    \b
    Examples:
      aurl sample runs/bach --n 4
      aurl sample runs/bach --temperature 0.8 --seed 7
      aurl sample runs/bach@best --out /tmp/music
      aurl sample runs/bach --prompt opening.mid --prompt-bars 2
      aurl sample gs://bucket/bach/checkpoints --json
    """
    from aurl_trainer.commands.trained import open_trained, which_weights
    from aurl_trainer.music.prompts import read_prompt
    from aurl_trainer.music.sampled import sample_pieces

    if prompt_bars is not None and prompt is None:
        raise typer.BadParameter("goes with --prompt", param_hint="--prompt-bars")
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    trained = open_trained(checkpoint, sys.stderr.isatty(), which_weights(weights))
    given = {"count": n, "tokens": tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    base = trained.experiment.samples
    config = base.model_copy(update={k: v for k, v in given.items() if v is not None})
    if not config.count:
        config = config.model_copy(update={"count": 1})
    prompts = [read_prompt(prompt, trained.prepared, prompt_bars)] if prompt is not None else None
    if seed is None:
        seed = trained.experiment.seed
    run = Path(checkpoint.run)
    inside = run / RunFile.SAMPLES if run.is_dir() else Path(RunFile.SAMPLES)
    folder = out if out is not None else inside
    label = f"seed-{seed}-"
    files = sample_pieces(
        trained.model, trained.prepared, config, seed, folder, trained.step, prompts=prompts, label=label
    )
    if as_json:
        typer.echo(json.dumps({"step": trained.step, "seed": seed, "files": [str(f) for f in files]}))
        return
    for midi in (f for f in files if f.suffix == ".mid"):
        others = ", ".join(f.suffix for f in files if f.stem == midi.stem and f != midi)
        typer.echo(f"{midi} (and {others})" if others else str(midi))
