"""Our writer and reader below torch's own save and load, and what they refuse."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import WriteItem, WriteItemType

from aurl_trainer.checkpoint.dcp import PackStorageWriter, TensorSavePlanner
from aurl_trainer.checkpoint.reading.dcp import PackStorageReader, TensorLoadPlanner, metadata_of
from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.names import CheckpointName, GenerationId
from aurl_trainer.store.location.place import Location
from tests.unit.trainer.store.made import IDENTITY

NAME = CheckpointName(1, 10, GenerationId(1, "0123abcd"))


def _save(location: Location, state: dict[str, torch.Tensor]) -> Manifest:
    committed: list[Manifest] = []

    def commit(packs: Any, tensors: Any) -> None:
        committed.append(
            Manifest(
                format="aurl-checkpoint",
                version=1,
                name=str(NAME),
                number=1,
                step=10,
                generation=1,
                nonce="0123abcd",
                run="r",
                at=0.0,
                world=1,
                identity=IDENTITY,
                versions={},
                metrics={},
                extra={},
                scalars={},
                packs=packs,
                tensors=tensors,
            )
        )

    writer = PackStorageWriter(location, NAME, rank=0, level=3, commit=commit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says that there is no process group
        dcp.save(state, storage_writer=writer, planner=TensorSavePlanner(), no_dist=True)
    return committed[0]


def test_torchs_own_save_and_load_work_over_our_store() -> None:
    location = Location("memory://dcp")
    state = {"a": torch.randn(3, 4), "b": torch.arange(5)}
    manifest = Manifest.parse(_save(location, state).to_bytes(), str(NAME))
    loaded = {"a": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.int64)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dcp.load(
            loaded,
            storage_reader=PackStorageReader(location, manifest),
            planner=TensorLoadPlanner(),
            no_dist=True,
        )
    assert torch.equal(loaded["a"], state["a"]) and torch.equal(loaded["b"], state["b"])


def test_bytes_are_refused_when_planned_and_when_loaded() -> None:
    planner = TensorSavePlanner()
    planner.set_up_planner({"x": {"not": "a tensor"}}, None, True)
    with pytest.raises(CheckpointError, match=r"x: only tensors are saved here"):
        planner.create_local_plan()
    with pytest.raises(CheckpointException, match="x: only tensors"):
        _save(Location("memory://bytes"), {"x": 3})  # type: ignore[dict-item]
    item = WriteItem(MetadataIndex("x"), WriteItemType.BYTE_IO)
    assert isinstance(planner, DefaultSavePlanner) and item.tensor_data is None


def test_dcps_metadata_comes_from_the_manifest_alone() -> None:
    manifest = _save(Location("memory://metadata"), {"a": torch.randn(3, 4, dtype=torch.float64)})
    metadata = metadata_of(manifest)
    assert list(metadata.state_dict_metadata) == ["a"]
    found = metadata.state_dict_metadata["a"]
    assert found.size == torch.Size((3, 4)) and found.properties.dtype == torch.float64  # type: ignore[union-attr]
    assert metadata.planner_data is None and metadata.storage_data is None
