"""Two gloo processes: the same state on both, failures on both, and other numbers of ranks afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.format.names import GenerationId
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.checkpoint.pool import RankPool
from tests.unit.trainer.checkpoint.small import (
    IDENTITY,
    checkpointer,
    hash_of,
    make,
    no_threads,
    state,
    train,
)

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def ranks() -> Iterator[RankPool]:
    pool = RankPool(2)
    yield pool
    pool.close()


def steps(uri: str) -> list[int]:
    return [n.step for n in RunStore(Location(uri)).valid()]


def _train_and_save(rank: int, world: int, uri: str, seed: int, until: int) -> tuple[Any, str]:
    """Resumes (or starts), trains to `until` under DDP, saves; the state's hash and the step resumed from."""
    model, optimizer = make(seed)
    wrapped = DistributedDataParallel(model)
    saver = checkpointer(uri, rank, world)
    saver.probe()
    opened = saver.open(state(wrapped, optimizer))
    start = opened.restored.step if opened.restored else 0
    train(wrapped, optimizer, *range(start, until))
    saver.save(until, state(wrapped, optimizer), {"by": world}, {"val_nll": 1.0})
    return start, hash_of(wrapped, optimizer)


def test_two_ranks_save_and_go_on_bit_exactly(ranks: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    (whole, whole_again) = ranks.run(_train_and_save, f"file://{tmp_path}/whole", 1, 6)
    assert whole == whole_again
    assert [r[0] for r in ranks.run(_train_and_save, uri, 1, 3)] == [0, 0]
    again = ranks.run(_train_and_save, uri, 5, 6)
    assert again == [(3, whole[1])] * 2, "the resumed run differs from the undisturbed one"
    packs = RunStore(Location(uri)).location.names("packs")
    assert [p.rpartition("/")[2] for p in packs] == ["rank-0000.pack", "rank-0001.pack"] * 2


def test_from_two_ranks_to_one_and_back(ranks: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    (_, at_three), _ = ranks.run(_train_and_save, uri, 1, 3)
    alone = make(7)
    saver = checkpointer(uri)
    opened = saver.open(state(*alone))
    assert opened.restored is not None and opened.restored.extra == {"by": 2}
    assert hash_of(*alone) == at_three, "2 to 1 ranks is not bit-exact"
    train(*alone, 3)
    saver.save(4, state(*alone), {"by": 1})
    results = ranks.run(_load_hash, uri)
    assert results == [hash_of(*alone)] * 2, "1 to 2 ranks is not bit-exact"


def _load_hash(rank: int, world: int, uri: str) -> str:
    model, optimizer = make(8)
    wrapped = DistributedDataParallel(model)
    checkpointer(uri, rank, world).open(state(wrapped, optimizer))
    return hash_of(wrapped, optimizer)


def _sharded(rank: int, world: int, uri: str, act: str) -> Any:
    """A matrix in row shards is saved; loaded in column shards, or whole."""
    mesh = init_device_mesh("cpu", (world,))
    values = torch.arange(7 * 5, dtype=torch.float32).reshape(7, 5)
    if act == "save":
        saver = checkpointer(uri, rank, world)
        saver.open({})
        saver.save(1, {"m": {"w": distribute_tensor(values, mesh, [Shard(0)])}}, {})
        return True
    placement = Shard(1) if act == "columns" else Replicate()
    target = distribute_tensor(torch.zeros(7, 5), mesh, [placement])
    checkpointer(uri, rank, world).open({"m": {"w": target}})
    return torch.equal(target.full_tensor(), values)


def test_sharded_tensors_are_saved_once_and_resharded(ranks: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    for act in ("save", "columns", "replicated"):
        assert ranks.run(_sharded, uri, act) == [True, True], act
    whole = {"m": {"w": torch.zeros(7, 5)}}
    checkpointer(uri).open(whole)
    assert torch.equal(whole["m"]["w"], torch.arange(35, dtype=torch.float32).reshape(7, 5))
    store = RunStore(Location(uri))
    (tensor,) = store.manifest(store.valid()[0]).tensors.values()
    assert [c.sizes for c in tensor.chunks] == [(4, 5), (3, 5)]


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
def test_a_full_disk_on_one_rank_is_everybodys_failed_save(
    ranks: RankPool, tmp_path: Path, full: int
) -> None:
    uri = f"file://{tmp_path}/run"
    first, second = ranks.run(_small_disk_on, uri, full)
    assert first[0] == second[0]
    (kind, message), after = first
    assert kind == "CheckpointError" and "cannot be written: File too large" in message
    assert f"rank-{full:04d}.pack" in message
    assert after == ([1], 1), "a failed save counts, or still fills the disk"
    assert steps(uri) == [1, 3]


def _probe(rank: int, world: int, folder: str) -> None:
    checkpointer(f"{folder}/{rank}", rank, world).probe()


def test_storage_that_the_ranks_do_not_share_is_refused(ranks: RankPool, tmp_path: Path) -> None:
    for kind, message, _ in ranks.run(_probe, str(tmp_path)):
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
def test_one_path_that_is_another_disk_on_each_node_is_refused(ranks: RankPool, tmp_path: Path) -> None:
    assert ranks.run(_probe_in_a_mount_of_its_own, str(tmp_path)) == [[], []], "a probe was left"
    assert list(tmp_path.iterdir()) == [], "the ranks had no mounts of their own"


def _probe_file(rank: int, world: int, uri: str) -> None:
    checkpointer(uri, rank, world).probe()


def test_an_unwritable_place_is_known_to_all_ranks(ranks: RankPool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for kind, message, _ in ranks.run(_probe_file, f"{tmp_path}/file/run"):
        assert kind == "CheckpointError" and "cannot be written: Not a directory" in message


def test_damage_that_one_rank_meets_is_everybodys_fall_back(ranks: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    (_, at_two), _ = ranks.run(_train_and_save, uri, 1, 2)
    ranks.run(_train_and_save, uri, 1, 4)
    store = RunStore(Location(uri))
    manifest = store.manifest(store.valid()[-1])
    path = tmp_path / "run" / manifest.packs[1].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    assert ranks.run(_load_hash, uri) == [at_two] * 2


def _load_with_a_bad_read(rank: int, world: int, uri: str) -> str:
    """Of rank 1's reads of packs the first one is cut short."""
    get, met = Location.get, []

    def cut(self: Location, name: str, start: int | None = None, end: int | None = None) -> bytes:
        data = get(self, name, start, end)
        if rank != 1 or met or not name.startswith("packs/"):
            return data
        met.append(name)
        return data[:-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Location, "get", cut)
        found = _load_hash(rank, world, uri)
    assert rank != 1 or met, "no read was bad"
    return found


def test_a_bad_read_of_one_rank_costs_no_checkpoint(ranks: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    ranks.run(_train_and_save, uri, 1, 2)
    (_, at_four), _ = ranks.run(_train_and_save, uri, 1, 4)
    assert ranks.run(_load_with_a_bad_read, uri) == [at_four] * 2
    assert steps(uri) == [2, 4]


def _save_unsavable(rank: int, world: int, uri: str) -> None:
    saver = checkpointer(uri, rank, world)
    saver.open({})
    saver.save(1, {"x": {"y": object() if rank == 1 else torch.ones(1)}}, {})


def test_what_only_one_rank_cannot_save_fails_on_both(ranks: RankPool, tmp_path: Path) -> None:
    for kind, message, _ in ranks.run(_save_unsavable, f"{tmp_path}/run"):
        assert kind == "CheckpointError" and "x.y: a checkpoint holds tensors and plain values" in message


def _save_fenced(rank: int, world: int, uri: str) -> None:
    saver = checkpointer(uri, rank, world)
    saver.open({})
    if rank == 0:
        store = RunStore(Location(uri))
        store.settle(store.claim("other", IDENTITY, 1), None, run="other", identity=IDENTITY)
    saver.save(1, {"x": torch.ones(1)}, {})


def test_a_fenced_world_leaves_as_a_whole(ranks: RankPool, tmp_path: Path) -> None:
    uri = f"{tmp_path}/run"
    for kind, message, _ in ranks.run(_save_fenced, uri):
        assert kind == "FencedError" and "generation 2 has taken over" in message
    assert steps(uri) == []


def _save_where_all_was_deleted(rank: int, world: int, uri: str) -> None:
    saver = checkpointer(uri, rank, world)
    saver.open({})
    if rank == 0:
        shutil.rmtree(uri)
    saver.save(1, {"x": torch.ones(1)}, {})


def test_a_place_that_was_deleted_is_known_to_all_ranks(ranks: RankPool, tmp_path: Path) -> None:
    for kind, message, _ in ranks.run(_save_where_all_was_deleted, f"{tmp_path}/run"):
        assert kind == "GoneError" and "was deleted under this run" in message


def _open_other(rank: int, world: int, uri: str) -> None:
    checkpointer(uri, rank, world, fingerprint={"seed": 2}).open({})


def test_another_configuration_is_refused_on_both(ranks: RankPool, tmp_path: Path) -> None:
    uri = f"{tmp_path}/run"
    ranks.run(_train_and_save, uri, 1, 1)
    for kind, message, _ in ranks.run(_open_other, uri):
        assert kind == "RefusedError" and "seed: 1 -> 2" in message
    assert max(f.id for f in RunStore(Location(uri)).fences()) < GenerationId(2, "")


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
    ranks: RankPool, tmp_path: Path, lacking: int
) -> None:
    uri = f"file://{tmp_path}/run"
    why = "no thread could be started (limit of processes, or memory): can't start new thread"
    expected: Any = (why, 2)
    assert ranks.run(_save_without_threads, uri, lacking) == [expected, expected]
    assert steps(uri) == [2]


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


def test_no_rank_uploads_while_rank_0_still_removes(ranks: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    told, stopped, saved = [("what follows the save of step 1", 0.0, [])] * 3, (None, 2), 2
    assert ranks.run(_save_behind, uri) == [(told, stopped, saved)] * 2, "or the wait did not end on both"
    store = RunStore(Location(uri))
    assert steps(uri) == [1, 2] and all(verify(store, name).good for name in store.valid())


@pytest.mark.parametrize("full", [0, 1])
def test_all_ranks_hear_the_same_of_a_save_beside_the_training(
    ranks: RankPool, tmp_path: Path, full: int
) -> None:
    uri = f"file://{tmp_path}/run"
    first, second = ranks.run(_save_beside, uri, full)
    assert first == second
    assert first[0] == (1, 1, 32_000, 0)
    assert first[1][:2] == (2, "CheckpointError") and f"rank-{full:04d}.pack" in first[1][2]
    assert first[2] == (3, 3, 16_000, 16_000), "half has not changed since the last that was committed"
    assert steps(uri) == [1, 3]
    names = RunStore(Location(uri)).location.names("packs")
    assert not [n for n in names if n.endswith(".json")], "pieces stay only until the commit"
