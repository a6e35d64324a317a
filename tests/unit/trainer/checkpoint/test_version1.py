"""Checkpoints of format version 1 load to the bit, a run goes on from them, and damage in them is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.config.checkpoint import CheckpointConfig, KeepConfig
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.checkpoint.version1 import IDENTITY, trained, write


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write(tmp_path / "old", 1, 2)
    return tmp_path / "old"


def checkpointer(place: Path) -> Checkpointer:
    settings = CheckpointConfig(keep=KeepConfig(latest=1, best=0, grace_seconds=0))
    return Checkpointer(str(place), run="old", fingerprint=IDENTITY, settings=settings, rank=0, world=1)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for part, values in expected.items():
        for key, value in values.items():
            same = (
                torch.equal(found[part][key], value) if torch.is_tensor(value) else found[part][key] == value
            )
            assert same, f"{part}.{key}: expected {value}, found {found[part][key]}"


def test_it_verifies_and_loads_to_the_bit(place: Path) -> None:
    store = RunStore(Location(str(place)))
    assert [n.step for n in store.valid()] == [1, 2]
    for name in store.valid():
        assert store.manifest(name).version == 1 and verify(store, name).good, verify(store, name).problems
    state = trained(9)
    restored = checkpointer(place).open(state).restored
    assert restored is not None and (restored.step, restored.damaged) == (2, [])
    assert restored.extra == {"position": 2, "pair": (1, 2)}
    assert restored.metrics == {"val_nll": 1.0, "bad": None}
    assert_same(state, trained(2))


def test_a_run_goes_on_from_it_and_refers_to_its_packs(place: Path) -> None:
    saver = checkpointer(place)
    state = trained(9)
    saver.open(state)
    saver.save(3, state | {"optimizer": state["optimizer"] | {"n": torch.tensor(3)}}, {"position": 3})
    store = RunStore(Location(str(place)))
    (newest,) = store.valid()  # retention has removed both old manifests
    packs = [p.path for p in store.manifest(newest).packs]
    assert any("v000002" in path for path in packs), "what did not change should be referred to"
    again = trained(9)
    restored = checkpointer(place).open(again).restored
    assert restored is not None and restored.step == 3 and restored.damaged == []
    assert_same(again, {"model": trained(2)["model"], "optimizer": {"n": torch.tensor(3)}})


def test_damage_in_it_is_found_and_the_older_one_taken(place: Path) -> None:
    (pack,) = place.glob("packs/v000002-*/rank-0001.pack")
    data = bytearray(pack.read_bytes())
    data[3] ^= 16
    pack.write_bytes(data)
    state = trained(9)
    restored = checkpointer(place).open(state).restored
    assert restored is not None and restored.step == 1
    assert "step 2 is damaged and passed over" in restored.damaged[0].message
    assert_same(state, trained(1))
