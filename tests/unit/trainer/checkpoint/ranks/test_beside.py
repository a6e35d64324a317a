"""Two gloo processes that save beside their steps: both hear the same at the same step."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.checkpoint.ranks.pool import RankPool
from tests.unit.trainer.checkpoint.small import (
    checkpointer,
    steps,
)

pytestmark = pytest.mark.processes


def _save_beside(rank: int, world: int, uri: str, full: int) -> Any:
    """Saves twice beside "steps" that only sum signals; the second fails on rank `full`, and on no other."""
    opener = checkpointer(uri, rank, world, compression=0, keep=KeepConfig(latest=9))
    noise = {
        part: {str(i): torch.randn(1000, generator=torch.Generator().manual_seed(seed + i)) for i in range(4)}
        for part, seed in (("frozen", 0), ("trained", 10))
    }
    opener.open(noise)
    saver = opener.saver
    told: list[tuple[Any, ...]] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for step in (1, 2, 3):
        for tensor in noise["trained"].values():
            tensor += 1
        if step == 2 and rank == full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        saver.begin(step, noise, {}, {})
        while saver.under_way is not None:
            signals = torch.tensor(saver.signals())
            torch.distributed.all_reduce(signals)
            try:
                saved = saver.heard(*signals.tolist())
            except Exception as error:
                told.append((step, type(error).__name__, str(error)))
            else:
                told += [] if saved is None else [(step, saved.step, saved.bytes, saved.reused)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    saver.tidy()
    return told


def _save_behind(rank: int, world: int, uri: str) -> Any:
    """Rank 0 still retains what follows save 1 when save 2 begins: what each rank sees, before and after."""
    opener = checkpointer(uri, rank, world, compression=0)
    noise = {str(i): torch.full((1000,), float(i)) for i in range(4)}
    opener.open(noise)
    saver, goes_on = opener.saver, threading.Event()
    saver.tidy()
    retain = saver._retain

    def slow(orphans_only: bool, stop: Callable[[], bool]) -> None:
        assert goes_on.wait(60), "nobody let retention go on"
        retain(orphans_only, stop)

    saver._retain = slow
    told = []
    for step in (1, 2):
        for tensor in noise.values():
            tensor += 1
        saver.begin(step, noise, {}, {})
        if step == 1:
            saver.finish()
    for _ in range(3):
        signals = torch.tensor(saver.signals())
        torch.distributed.all_reduce(signals)
        saver.heard(*signals.tolist())
        written = [n for n in RunStore(Location(uri)).pack_folders() if n.step == 2]
        told.append((saver.following, saver.seconds_under_way, written))
        torch.distributed.barrier()
    stopped = saver.finish(stop=lambda: rank == 1), saver.under_way
    goes_on.set()
    saved = saver.finish()
    saver.tidy()
    return told, stopped, None if saved is None else saved.step


def test_no_rank_uploads_while_rank_0_still_removes(two: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    told, stopped, saved = [("what follows the save of step 1", 0.0, [])] * 3, (None, 2), 2
    assert two.run(_save_behind, uri) == [(told, stopped, saved)] * 2, "or the wait did not end on both"
    store = RunStore(Location(uri))
    assert steps(uri) == [1, 2] and all(verify(store, name).good for name in store.valid())


@pytest.mark.parametrize("full", [0, 1])
def test_all_ranks_hear_the_same_of_a_save_beside_the_training(
    two: RankPool, tmp_path: Path, full: int
) -> None:
    uri = f"file://{tmp_path}/run"
    first, second = two.run(_save_beside, uri, full)
    assert first == second
    assert first[0] == (1, 1, 32_000, 0)
    assert first[1][:2] == (2, "CheckpointError") and f"rank-{full:04d}.pack" in first[1][2]
    assert first[2] == (3, 3, 16_000, 16_000), "half has not changed since the last that was committed"
    assert steps(uri) == [1, 3]
    names = RunStore(Location(uri)).location.names("packs")
    assert not [n for n in names if n.endswith(".json")], "pieces stay only until the commit"
