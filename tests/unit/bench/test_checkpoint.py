"""What bench/checkpoint tells of incremental saves holds for the settings that people have."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.checkpoint.parts import ModelPart, OptimizerPart
from aurl_trainer.config.checkpoint import CheckpointConfig
from bench.checkpoint.parts import Figures, incremental
from bench.checkpoint.state import LAYERS, model_of, optimizer_of, touch

PARAMETERS = 40_000
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    return incremental(str(tmp_path_factory.mktemp("bench")), CPU, PARAMETERS, 4)


def saved_by_default(uri: str, saves: int) -> list[int]:
    """Bytes of each save of a run that has nothing set, three of four layers frozen."""
    model = model_of(PARAMETERS, CPU)
    for layer in list(model.children())[: LAYERS * 3 // 4]:
        layer.requires_grad_(False)
    optimizer = optimizer_of(model)
    run = Checkpointer(uri, run="r", fingerprint={}, settings=CheckpointConfig(), rank=0, world=1)
    run.open({})
    state = {"model": ModelPart(model), "optimizer": OptimizerPart(model, optimizer)}
    found = []
    for step in range(1, saves + 1):
        touch(model, optimizer)
        found.append(run.save(step, state, {}).bytes)
    return found


def about(size: float) -> Any:
    """So small tensors now and then shrink by a fifth, and are compressed, or do not."""
    return pytest.approx(size, rel=0.1)


def test_incremental_saves_are_told_as_the_mean_under_the_defaults(figures: Figures, tmp_path: Path) -> None:
    first, *later = saved_by_default(str(tmp_path), 7)
    assert figures["whole_bytes"] == about(first)
    assert figures["default_mean_bytes"] == about(statistics.mean(later))
    assert figures["default_most_bytes"] == about(max(later))
    assert figures["default_mean_bytes"] > 1.3 * figures["default_least_bytes"], (
        "the best save is not what saves cost"
    )


@pytest.mark.parametrize(("name", "latest", "after"), [("default", 3, 2), ("latest_6", 6, 5)])
def test_a_mean_is_what_changes_and_a_share_of_the_rest(
    figures: Figures, name: str, latest: int, after: int
) -> None:
    whole, changed = figures["whole_bytes"], figures["default_least_bytes"]
    assert figures[f"{name}_mean_bytes"] == about(changed + (whole - changed) / after)
    # At times two of those kept are whole; manifests and the index come on top.
    assert figures[f"{name}_stored_bytes"] > 0.9 * (2 * whole + (latest - 2) * changed)
