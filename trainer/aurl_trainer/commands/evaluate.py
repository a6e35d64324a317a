"""`aurl evaluate`: how well a trained model predicts held-out music, against simple models.

Not here: the measuring (engine/evaluation.py, music/baselines.py). Importing this loads no torch.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Annotated

import typer

from aurl_trainer.commands.checkpoints.asked import Checkpoint


def evaluate(
    checkpoint: Checkpoint,
    weights: Annotated[
        str | None, typer.Option(help="model or average. Default: those the run is judged by.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Use only the first so many held-out samples.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a trained model on the held-out pieces.

    Prints the negative log likelihood per token (nats; lower is better)
    beside a unigram and an order-2 Markov model of the same tokens, fitted on
    the training pieces. All on the music that is here now; where it is not
    what the model was trained on, a warning says how it differs.

    \b
    Examples:
      aurl evaluate runs/bach
      aurl evaluate runs/bach@best --json
    """
    from rich.console import Console
    from rich.table import Table

    from aurl_trainer.commands.held_out import finite, held_out_count, measure_held_out
    from aurl_trainer.commands.trained import open_trained, which_weights
    from aurl_trainer.data.dataset import LazyMidiDataset
    from aurl_trainer.music.baselines import measure

    trained = open_trained(checkpoint, sys.stderr.isatty(), which_weights(weights))
    training = LazyMidiDataset(trained.prepared, "train")
    held_out = LazyMidiDataset(trained.prepared, "validation")
    count = held_out_count(trained, samples)
    found = measure_held_out(trained, samples)
    simple = measure(training, held_out, trained.prepared.vocab_size, count)
    rows = {"model": found.nll, "unigram": simple.unigram, "markov2": simple.markov2}
    for line in trained.other or ():
        typer.echo(f"warning: other music than the checkpoint was trained on: {line}", err=True)
    if as_json:
        told = {
            "step": trained.step,
            "weights": trained.weights,
            "tokens": found.tokens,
            "nats_per_token": {name: finite(nll) for name, nll in rows.items()},
            "same_music": None if trained.other is None else not trained.other,
        }
        typer.echo(json.dumps(told, allow_nan=False))
        return
    of = "averaged weights" if trained.weights == "average" else "the model's own weights"
    table = Table(title=f"Step {trained.step:,}, {of}: {found.tokens:,} held-out tokens")
    table.add_column("")
    for heading in ("nats/token", "as unsure as among", "model is better by"):
        table.add_column(heading, justify="right")
    names = {"model": "this model", "unigram": "unigram", "markov2": "order-2 Markov"}
    for key, nll in rows.items():
        ahead = "" if key == "model" else f"{nll - found.nll:+.3f}"
        table.add_row(names[key], f"{nll:.3f}", f"{math.exp(nll):.1f} tokens", ahead)
    Console().print(table)
