"""Real worlds of 1, 2 and 3 ranks with gloo between them, and a run of the loop in one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.engine.exact import gradients
from aurl_trainer.engine.parallel import World
from aurl_trainer.engine.randomness import seed_all
from aurl_trainer.engine.runtime import Runtime
from aurl_trainer.engine.trainer import AdvancedTrainer
from aurl_trainer.errors import LeaveError
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from tests.unit.trainer.checkpoint.ranks.pool import RankPool
from tests.unit.trainer.engine.corpus import Windows
from tests.unit.trainer.engine.runs import Watch, make_experiment


class Worlds:
    """Three processes, of which some form a new world for each function."""

    def __init__(self, folder: Path) -> None:
        self._pool, self._folder, self._formed = RankPool(3), folder, 0

    def run(self, size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The results of `function(rank, size, *arguments)` in a world of `size`."""
        self._formed += 1
        meeting = f"file://{self._folder}/{self._formed}"
        return self._pool.run(_in_world, size, meeting, function, arguments)[:size]

    def close(self) -> None:
        self._pool.close()


def _in_world(
    rank: int,
    processes: int,
    size: int,
    meeting: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> Any:
    if dist.is_initialized():
        dist.destroy_process_group()
    if rank >= size:
        return None
    if size > 1:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    return function(rank, size, *arguments)


def world_of(rank: int, size: int) -> World:
    return World(rank, size, rank, torch.device("cpu"))


def train(rank: int, size: int, uri: str, until: int | None, fields: dict[str, Any]) -> dict[str, Any]:
    """On a rank: go on from what lies at `uri`, to the end or until the world changes after step `until`."""
    # Several buckets, and a share of each that is cut within a tensor.
    gradients.BUCKET = 1000
    experiment = make_experiment(**fields)
    watch = Watch(leave_after=until, regroup=True)
    world = world_of(rank, size)
    data = Windows()
    seed_all(experiment.seed, "weights")
    model = MusicTransformerVAEGAN(experiment.model, data.vocab, data.pad_id, data.sequence_length)
    trainer = AdvancedTrainer(
        model,
        ComprehensiveLossFramework(experiment.loss),
        train=data,
        validation=Windows(count=10, seed=9),
        runtime=Runtime(
            world=world, beats=watch, open_records=watch.open, progress=watch, say=watch.said.append
        ),
        checkpointer=Checkpointer(
            uri,
            run="exact",
            fingerprint=experiment.identity(),
            settings=experiment.checkpoint,
            rank=rank,
            world=size,
        ),
    ).configure(experiment)
    left = None
    try:
        trainer.fit()
    except LeaveError as error:
        left = error.exit_code
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return {
        "left": left,
        "losses": {r["step"]: (r["loss"], r["grad_norm"]) for r in watch.of("step")},
        "validation": {r["step"]: r["val_loss"] for r in watch.of("evaluation")},
        "weights": weights.numpy().tobytes(),
    }
