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
    the training pieces.

    \b
    Examples:
      aurl evaluate runs/bach
      aurl evaluate runs/bach@best --json
    """
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from aurl_trainer.commands.trained import open_trained, which_weights
    from aurl_trainer.data.dataset import LazyMidiDataset
    from aurl_trainer.engine.evaluation import evaluate as measure_model
    from aurl_trainer.engine.parallel import World
    from aurl_trainer.engine.precision import Precision
    from aurl_trainer.music.baselines import measure

    interactive = sys.stderr.isatty()
    trained = open_trained(checkpoint, interactive, which_weights(weights))
    training = LazyMidiDataset(trained.prepared, "train")
    held_out = LazyMidiDataset(trained.prepared, "validation")
    count = min(samples or len(held_out), len(held_out))
    engine = trained.experiment.engine
    batch = engine.batch.global_batch // engine.batch.shards
    with Progress(console=Console(stderr=True), disable=not interactive, transient=True) as bar:
        task = bar.add_task("held-out pieces", total=math.ceil(count / batch))
        found = measure_model(
            trained.model,
            held_out,
            count=count,
            batch=batch,
            world=World.alone(engine.device),
            precision=Precision(engine.precision, trained.device),
            alive=lambda: bar.advance(task),
        )
    simple = measure(training, held_out, trained.prepared.vocab_size, count)
    rows = {"model": found.nll, "unigram": simple.unigram, "markov2": simple.markov2}
    if as_json:
        told = {
            "step": trained.step,
            "weights": trained.weights,
            "tokens": found.tokens,
            "nats_per_token": rows,
        }
        typer.echo(json.dumps(told))
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
