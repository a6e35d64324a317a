"""Two real processes after a regroup: one kept its disk, the other is new and has nothing."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from torch.nn.parallel import DistributedDataParallel

from aurl_trainer.store.kept import KeptPacks
from tests.unit.trainer.checkpoint.ranks.pool import RankPool
from tests.unit.trainer.checkpoint.small import checkpointer, hash_of, make, state, train
from tests.unit.trainer.store.far import FarFileSystem

pytestmark = pytest.mark.processes


def _open(rank: int, world: int, uri: str, disks: str, seed: int) -> Any:
    model, optimizer = make(seed)
    wrapped = DistributedDataParallel(model)
    kept = KeptPacks(Path(disks) / str(rank), 2**20)
    saver = checkpointer(uri, rank, world, kept=kept)
    return saver, wrapped, optimizer, saver.open(state(wrapped, optimizer)).restored


def _save(rank: int, world: int, uri: str, disks: str) -> str:
    saver, model, optimizer, _ = _open(rank, world, uri, disks, 1)
    train(model, optimizer, 0, 1)
    saver.save(2, state(model, optimizer), {})
    return hash_of(model, optimizer)


def _resume(rank: int, world: int, uri: str, disks: str) -> tuple[str, dict[str, Any], list[str]]:
    """The state's hash, where its bytes came from over both ranks, and what this rank read of the store."""
    FarFileSystem.reads.clear()
    _, model, optimizer, restored = _open(rank, world, uri, disks, 5 + rank)
    return (
        hash_of(model, optimizer),
        asdict(restored.sources),
        [p.rpartition("/")[2] for p in FarFileSystem.reads],
    )


def test_who_stayed_reads_its_own_disk_and_who_is_new_asks_it(two: RankPool, tmp_path: Path) -> None:
    uri, disks = f"far://{tmp_path}/run", str(tmp_path / "disks")
    (saved, _) = two.run(_save, uri, disks)
    shutil.rmtree(Path(disks) / "1")
    stayed, new = two.run(_resume, uri, disks)
    assert stayed[0] == new[0] == saved, "the same state to the last bit"
    half = (tmp_path / "run" / "packs").glob("*/rank-0000.pack")
    size = next(half).stat().st_size
    assert (stayed[1]["disk"], stayed[1]["peers"], stayed[1]["refused"]) == (size, size, 0)
    for _, _, reads in (stayed, new):
        assert set(reads) == {"rank-0001.pack"}, "only what the lost node alone had comes from the store"


def test_a_peers_wrong_answer_is_refused(two: RankPool, tmp_path: Path) -> None:
    uri, disks = f"far://{tmp_path}/run", str(tmp_path / "disks")
    (saved, _) = two.run(_save, uri, disks)
    shutil.rmtree(Path(disks) / "1")
    (pack,) = (Path(disks) / "0").rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 4
    pack.write_bytes(data)
    stayed, new = two.run(_resume, uri, disks)
    assert stayed[0] == new[0] == saved
    assert stayed[1]["refused"] == 2, "by the node itself and by its peer"


def test_a_node_that_joins_takes_all_from_those_that_stayed(two: RankPool, tmp_path: Path) -> None:
    uri, disks = f"far://{tmp_path}/run", str(tmp_path / "disks")
    (saved, _) = two.run(_save, uri, disks)
    shutil.copytree(Path(disks) / "1", Path(disks) / "0", dirs_exist_ok=True)
    shutil.rmtree(Path(disks) / "1")
    stayed, new = two.run(_resume, uri, disks)
    assert stayed[0] == new[0] == saved
    assert stayed[2] == new[2] == [], "the store is not read at all"
    assert stayed[1]["store"] == 0
