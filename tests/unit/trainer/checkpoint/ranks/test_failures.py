"""Two gloo processes: what fails on one of them fails on both, with one message."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.format.names import GenerationId
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.checkpoint.ranks.pool import RankPool
from tests.unit.trainer.checkpoint.small import (
    IDENTITY,
    checkpointer,
    no_threads,
    steps,
)

pytestmark = pytest.mark.processes


def _small_disk_on(rank: int, world: int, uri: str, full: int) -> Any:
    """The disk of rank `full` takes no more than 1000 bytes a file; then it has room again."""
    saver = checkpointer(uri, rank, world, compression=0)
    noise = {"t": {str(i): torch.randn(1000, generator=torch.Generator().manual_seed(i)) for i in range(4)}}
    saver.open(noise)
    saver.save(1, noise, {})
    for tensor in noise["t"].values():
        tensor += 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if rank == full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        saver.save(2, noise, {})
        outcome = ("saved", "")
    except Exception as error:
        outcome = (type(error).__name__, str(error))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    # Rank 0 cleans up before it reports.
    after = (steps(uri), len(Location(uri).folders("packs"))) if rank == 0 else None
    saver.save(3, noise, {})
    return outcome, after


@pytest.mark.parametrize("full", [0, 1])
def test_a_full_disk_on_one_rank_is_everybodys_failed_save(two: RankPool, tmp_path: Path, full: int) -> None:
    uri = f"file://{tmp_path}/run"
    first, second = two.run(_small_disk_on, uri, full)
    assert first[0] == second[0]
    (kind, message), after = first
    assert kind == "CheckpointError" and "cannot be written: File too large" in message
    assert f"rank-{full:04d}.pack" in message
    assert after == ([1], 1), "a failed save counts, or still fills the disk"
    assert steps(uri) == [1, 3]


def _probe(rank: int, world: int, folder: str) -> None:
    checkpointer(f"{folder}/{rank}", rank, world).probe()


def test_storage_that_the_ranks_do_not_share_is_refused(two: RankPool, tmp_path: Path) -> None:
    for kind, message, _ in two.run(_probe, str(tmp_path)):
        assert kind == "CheckpointError" and "must name storage that all nodes share" in message


CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


def _probe_in_a_mount_of_its_own(rank: int, world: int, folder: str) -> list[str]:
    """As on two nodes that both have a disk at that path; what this rank sees there afterwards."""
    libc = ctypes.CDLL(None, use_errno=True)
    for failed in (
        libc.unshare(CLONE_NEWNS),
        libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
        libc.mount(b"none", folder.encode(), b"tmpfs", 0, None),
    ):
        if failed:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        with pytest.raises(CheckpointError, match="must name storage that all nodes share"):
            checkpointer(f"file://{folder}/run", rank, world).probe()
        return Location(f"file://{folder}/run").names("")
    finally:
        libc.umount2(folder.encode(), 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
def test_one_path_that_is_another_disk_on_each_node_is_refused(two: RankPool, tmp_path: Path) -> None:
    assert two.run(_probe_in_a_mount_of_its_own, str(tmp_path)) == [[], []], "a probe was left"
    assert list(tmp_path.iterdir()) == [], "the ranks had no mounts of their own"


def _probe_file(rank: int, world: int, uri: str) -> None:
    checkpointer(uri, rank, world).probe()


def test_an_unwritable_place_is_known_to_all_ranks(two: RankPool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for kind, message, _ in two.run(_probe_file, f"{tmp_path}/file/run"):
        assert kind == "CheckpointError" and "cannot be written: Not a directory" in message


def _save_unsavable(rank: int, world: int, uri: str) -> None:
    saver = checkpointer(uri, rank, world)
    saver.open({})
    saver.save(1, {"x": {"y": object() if rank == 1 else torch.ones(1)}}, {})


def test_what_only_one_rank_cannot_save_fails_on_both(two: RankPool, tmp_path: Path) -> None:
    for kind, message, _ in two.run(_save_unsavable, f"{tmp_path}/run"):
        assert kind == "CheckpointError" and "x.y: a checkpoint holds tensors and plain values" in message


def _save_fenced(rank: int, world: int, uri: str) -> None:
    saver = checkpointer(uri, rank, world)
    saver.open({})
    if rank == 0:
        store = RunStore(Location(uri))
        store.settle(store.claim("other", IDENTITY, 1), None, run="other", identity=IDENTITY)
    saver.save(1, {"x": torch.ones(1)}, {})


def test_a_fenced_world_leaves_as_a_whole(two: RankPool, tmp_path: Path) -> None:
    uri = f"{tmp_path}/run"
    for kind, message, _ in two.run(_save_fenced, uri):
        assert kind == "FencedError" and "generation 2 has taken over" in message
    assert steps(uri) == []


def _save_where_all_was_deleted(rank: int, world: int, uri: str) -> None:
    saver = checkpointer(uri, rank, world)
    saver.open({})
    if rank == 0:
        shutil.rmtree(uri)
    saver.save(1, {"x": torch.ones(1)}, {})


def test_a_place_that_was_deleted_is_known_to_all_ranks(two: RankPool, tmp_path: Path) -> None:
    for kind, message, _ in two.run(_save_where_all_was_deleted, f"{tmp_path}/run"):
        assert kind == "GoneError" and "was deleted under this run" in message


def _save_first(rank: int, world: int, uri: str) -> int:
    saver = checkpointer(uri, rank, world)
    saver.open({})
    return saver.save(1, {"x": {"y": torch.ones(1)}}, {}).step


def _open_other(rank: int, world: int, uri: str) -> None:
    checkpointer(uri, rank, world, fingerprint={"seed": 2}).open({})


def test_another_configuration_is_refused_on_both(two: RankPool, tmp_path: Path) -> None:
    uri = f"{tmp_path}/run"
    assert two.run(_save_first, uri) == [1, 1]
    for kind, message, _ in two.run(_open_other, uri):
        assert kind == "RefusedError" and "seed: 1 -> 2" in message
    assert max(f.id for f in RunStore(Location(uri)).fences()) < GenerationId(2, "")


def _save_without_threads(rank: int, world: int, uri: str, lacking: int) -> Any:
    """Rank `lacking` can start no thread for save 1; save 2 is made. What each rank is told of both."""
    opener = checkpointer(uri, rank, world)
    state = {"t": {str(i): torch.full((1000,), float(i)) for i in range(4)}}
    opener.open(state)
    opener.saver.tidy()
    try:
        with no_threads() if rank == lacking else contextlib.nullcontext():
            opener.saver.begin(1, state, {}, {})
        opener.saver.finish()
        failed = ""
    except CheckpointError as error:
        failed = str(error)
    opener.saver.tidy()
    return failed, opener.save(2, state, {}).step


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_rank_that_can_start_no_thread_is_everybodys_failed_save(
    two: RankPool, tmp_path: Path, lacking: int
) -> None:
    uri = f"file://{tmp_path}/run"
    why = "no thread could be started (limit of processes, or memory): can't start new thread"
    expected: Any = (why, 2)
    assert two.run(_save_without_threads, uri, lacking) == [expected, expected]
    assert steps(uri) == [2]
