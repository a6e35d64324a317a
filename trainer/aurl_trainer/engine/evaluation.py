"""Validation: negative log-likelihood per token over held-out samples.

Each rank takes every `world`-th batch; sums and counts are added over the ranks. Not here: music metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from aurl_trainer.data.batches import IGNORED, Samples, collate
from aurl_trainer.engine.parallel import World
from aurl_trainer.engine.precision import Precision


@dataclass(frozen=True)
class Evaluation:
    """Nats per token over `tokens` targets."""

    nll: float
    tokens: int


@torch.no_grad()
def evaluate(
    model: nn.Module,
    samples: Samples,
    *,
    count: int,
    batch: int,
    world: World,
    precision: Precision,
    alive: Callable[[], None] = lambda: None,
) -> Evaluation:
    """NLL of the first `count` samples; every target but padding counts once.

    `alive` is called after each batch: it tells the heartbeat that the evaluation moves. Dropout is off
    while it runs and no random number is drawn.
    """
    training = model.training
    model.eval()
    nll, tokens = 0.0, 0
    starts = range(0, count, batch)
    for start in list(starts)[world.rank :: world.size]:
        ids = np.arange(start, min(start + batch, count), dtype=np.int64)
        inputs, targets = collate(samples, ids)
        with precision.forward():
            logits = model(inputs.to(world.device))
        nll += float(
            nn.functional.cross_entropy(
                logits.float().flatten(0, 1),
                targets.to(world.device).flatten(),
                ignore_index=IGNORED,
                reduction="sum",
            )
        )
        tokens += int((targets != IGNORED).sum())
        alive()
    model.train(training)
    nll, total = world.sum([nll, float(tokens)])
    return Evaluation(nll / max(1.0, total), int(total))
