"""Validation: negative log-likelihood per token over held-out samples.

Batches are cut alike in every world and each rank takes every `world`-th; their sums are added exactly, so
the result does not depend on the world. Not here: music metrics.
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
from aurl_trainer.errors import BrokenOffError

ASK = 4
"""Batches of each rank between two looks at whether all go on."""


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
    stop: Callable[[], bool] | None = None,
) -> Evaluation:
    """NLL of the first `count` samples; every target but padding counts once.

    `alive` is called after each batch: it tells the heartbeat that the evaluation moves. With `stop`, given
    by all ranks or by none, each is asked now and then. Dropout is off while it runs and no random number is
    drawn.

    Raises BrokenOffError on all ranks once `stop` says so on any.
    """
    training = model.training
    model.eval()
    sums: list[float] = []
    tokens = 0
    starts = range(0, count, batch)
    for round_, first in enumerate(range(0, len(starts), world.size)):
        if stop is not None and round_ % ASK == ASK - 1 and any(world.sum([[float(stop())]])):
            model.train(training)
            raise BrokenOffError("a node has to leave")
        if first + world.rank >= len(starts):
            continue
        start = starts[first + world.rank]
        ids = np.arange(start, min(start + batch, count), dtype=np.int64)
        inputs, targets = collate(samples, ids)
        with precision.forward():
            logits = model(inputs.to(world.device))
        nll = nn.functional.cross_entropy(
            logits.float().flatten(0, 1),
            targets.to(world.device).flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        sums.append(float(nll))
        tokens += int((targets != IGNORED).sum())
        alive()
    model.train(training)
    total, count_all = world.sum([sums, [float(tokens)]])
    return Evaluation(total / max(1.0, count_all), int(count_all))
