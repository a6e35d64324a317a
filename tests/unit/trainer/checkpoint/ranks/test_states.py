"""Two gloo processes: the same state on both, whatever saved it, and whatever damage one of them meets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.checkpoint.ranks.pool import RankPool
from tests.unit.trainer.checkpoint.small import (
    checkpointer,
    hash_of,
    make,
    state,
    steps,
    train,
)

pytestmark = pytest.mark.processes


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


def test_two_ranks_save_and_go_on_bit_exactly(two: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    (whole, whole_again) = two.run(_train_and_save, f"file://{tmp_path}/whole", 1, 6)
    assert whole == whole_again
    assert [r[0] for r in two.run(_train_and_save, uri, 1, 3)] == [0, 0]
    again = two.run(_train_and_save, uri, 5, 6)
    assert again == [(3, whole[1])] * 2, "the resumed run differs from the undisturbed one"
    packs = RunStore(Location(uri)).location.names("packs")
    assert [p.rpartition("/")[2] for p in packs] == ["rank-0000.pack", "rank-0001.pack"] * 2


def test_from_two_ranks_to_one_and_back(two: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    (_, at_three), _ = two.run(_train_and_save, uri, 1, 3)
    alone = make(7)
    saver = checkpointer(uri)
    opened = saver.open(state(*alone))
    assert opened.restored is not None and opened.restored.extra == {"by": 2}
    assert hash_of(*alone) == at_three, "2 to 1 ranks is not bit-exact"
    train(*alone, 3)
    saver.save(4, state(*alone), {"by": 1})
    results = two.run(_load_hash, uri)
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


def test_sharded_tensors_are_saved_once_and_resharded(two: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    for act in ("save", "columns", "replicated"):
        assert two.run(_sharded, uri, act) == [True, True], act
    whole = {"m": {"w": torch.zeros(7, 5)}}
    checkpointer(uri).open(whole)
    assert torch.equal(whole["m"]["w"], torch.arange(35, dtype=torch.float32).reshape(7, 5))
    store = RunStore(Location(uri))
    (tensor,) = store.manifest(store.valid()[0]).tensors.values()
    assert [c.sizes for c in tensor.chunks] == [(4, 5), (3, 5)]


def test_damage_that_one_rank_meets_is_everybodys_fall_back(two: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    (_, at_two), _ = two.run(_train_and_save, uri, 1, 2)
    two.run(_train_and_save, uri, 1, 4)
    store = RunStore(Location(uri))
    manifest = store.manifest(store.valid()[-1])
    path = tmp_path / "run" / manifest.packs[1].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    assert two.run(_load_hash, uri) == [at_two] * 2


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


def test_a_bad_read_of_one_rank_costs_no_checkpoint(two: RankPool, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    two.run(_train_and_save, uri, 1, 2)
    (_, at_four), _ = two.run(_train_and_save, uri, 1, 4)
    assert two.run(_load_with_a_bad_read, uri) == [at_four] * 2
    assert steps(uri) == [2, 4]
