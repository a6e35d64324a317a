"""How well a model predicts the held-out pieces, with a bar on a terminal.

Not here: the measuring itself (engine/evaluation.py).
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aurl_trainer.commands.trained import Untrained
    from aurl_trainer.engine.evaluation import Evaluation


def finite(nll: float) -> float | None:
    """`nll` for JSON, which has no other numbers."""
    return nll if math.isfinite(nll) else None


def held_out_count(built: Untrained, samples: int | None) -> int:
    """How many held-out samples are measured: the first `samples`, or all."""
    from aurl_trainer.data.dataset import LazyMidiDataset

    there = len(LazyMidiDataset(built.prepared, "validation"))
    return min(samples or there, there)


def measure_held_out(built: Untrained, samples: int | None, title: str = "held-out pieces") -> Evaluation:
    """NLL of the model as it is now, over the first `samples` held-out samples (None: all)."""
    from rich.console import Console
    from rich.progress import Progress

    from aurl_trainer.data.dataset import LazyMidiDataset
    from aurl_trainer.engine.evaluation import evaluate
    from aurl_trainer.engine.parallel import World
    from aurl_trainer.engine.precision import Precision

    engine = built.experiment.engine
    batch = engine.batch.global_batch // engine.batch.shards
    count = held_out_count(built, samples)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(title, total=math.ceil(count / batch))
        return evaluate(
            built.model,
            LazyMidiDataset(built.prepared, "validation"),
            count=count,
            batch=batch,
            world=World.alone(engine.device),
            precision=Precision(engine.precision, built.device),
            alive=lambda: bar.advance(task),
        )
