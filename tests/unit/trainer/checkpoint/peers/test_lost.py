"""Packs that the store has lost while copies of them are nearby: told, used, and never referred to again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from aurl_trainer.checkpoint.checkpointer import Checkpointer, Restored
from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.kept import KeptPacks
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.checkpoint.small import checkpointer
from tests.unit.trainer.store.far import FarFileSystem


def state_of(step: int) -> dict[str, Any]:
    """Half of it never changes."""
    return {"model": {"frozen": torch.arange(500.0), "trained": torch.full((500,), float(step)).cumsum(0)}}


def opened(tmp_path: Path, state: dict[str, Any], disk: str = "disk") -> tuple[Checkpointer, Restored | None]:
    saver = checkpointer(
        f"far://{tmp_path}/run",
        kept=KeptPacks(tmp_path / disk, 2**20),
        compression=0,
        keep=KeepConfig(latest=9, grace_seconds=0),  # so that nothing is written again for its age
    )
    return saver, saver.open(state).restored


def store(tmp_path: Path) -> RunStore:
    return RunStore(Location(str(tmp_path / "run")))


def damaged(tmp_path: Path) -> list[int]:
    there = store(tmp_path)
    return [name.step for name in there.committed() if not verify(there, name).good]


def manifests(tmp_path: Path) -> list[Manifest]:
    there = store(tmp_path)
    return [there.manifest(name) for name in there.committed()]


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """Two steps are saved, and their packs are on this node's disk. The pack that both refer to."""
    saver, _ = opened(tmp_path, state_of(0))
    for step in (1, 2):
        saver.save(step, state_of(step), {})
    first, second = manifests(tmp_path)
    (shared,) = {p.path for p in first.packs} & {p.path for p in second.packs}
    return tmp_path / "run" / shared


@pytest.mark.parametrize("how", ["lost", "cut short"])
def test_what_the_store_has_lost_is_told_and_written_anew(tmp_path: Path, frozen: Path, how: str) -> None:
    if how == "lost":
        frozen.unlink()
    else:
        frozen.write_bytes(frozen.read_bytes()[:-1])
    state = state_of(0)
    FarFileSystem.reads.clear()
    saver, restored = opened(tmp_path, state)
    assert restored is not None and restored.step == 2
    assert torch.equal(state["model"]["trained"], state_of(2)["model"]["trained"]), "copies have it whole"
    assert restored.sources.store == 0 and FarFileSystem.reads == []
    (damage,) = restored.damaged
    assert (damage.name, damage.step) == (restored.name, 2)
    pack = "/".join(frozen.parts[-3:])
    assert "step 2 is damaged on the store" in damage.message and pack in damage.message, damage.message
    saver.save(3, state_of(3), {})
    assert damaged(tmp_path) == [1, 2], "step 3 must not refer to what is lost"
    shutil.rmtree(tmp_path / "disk")
    _, after = opened(tmp_path, state_of(0), "another disk")
    assert after is not None and (after.step, after.damaged) == (3, [])


def test_what_is_there_is_referred_to_as_ever(tmp_path: Path, frozen: Path) -> None:
    saver, restored = opened(tmp_path, state_of(0))
    assert restored is not None and restored.damaged == []
    saver.save(3, state_of(3), {})
    assert "/".join(frozen.parts[-3:]) in {p.path for p in manifests(tmp_path)[-1].packs}
    assert damaged(tmp_path) == []


def test_a_store_that_does_not_say_is_no_damage(
    tmp_path: Path, frozen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: FarFileSystem, path: str, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(FarFileSystem, "info", denied)
    with pytest.raises(CheckpointError, match="Permission denied"):
        opened(tmp_path, state_of(0))
