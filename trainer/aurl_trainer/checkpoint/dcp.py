"""torch.distributed.checkpoint over our store: planners, writer and reader.

DCP plans what each rank writes and reads, resharding included. Ours are the bytes: packs of each rank. Only
tensors pass: DCP would pickle everything else, and unpickle whatever it finds. Its metadata is rebuilt from
the manifest. Not here: commit, generations and agreement (checkpointer.py); these classes also work below
torch.distributed.checkpoint.save and load.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Any, cast

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from aurl_trainer.checkpoint.saving.staging import box_of
from aurl_trainer.checkpoint.saving.upload import Uploader
from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.format.manifest import Chunk, Manifest, Pack, Tensor
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.packs import Wanted, read_chunks
from aurl_trainer.store.format.pieces import assemble
from aurl_trainer.store.location import Location


class TensorSavePlanner(DefaultSavePlanner):
    """DCP's planner for a flat state of tensors. Replicated tensors are spread over the ranks."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False)

    def create_local_plan(self) -> SavePlan:
        """DCP's plan. Raises CheckpointError for anything but tensors."""
        plan = super().create_local_plan()
        for item in plan.items:
            if item.type == WriteItemType.BYTE_IO:
                raise CheckpointError(f"{item.index.fqn}: only tensors are saved here, never pickled objects")
        return plan


class TensorLoadPlanner(DefaultLoadPlanner):
    """DCP's planner for a flat state of tensors."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False)

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Always refuses: DCP would unpickle it."""
        raise CheckpointError(f"{read_item.dest_index.fqn}: not a tensor; pickled objects are not loaded")


class PackStorageWriter(StorageWriter):
    """Writes this rank's chunks into its pack of the checkpoint `name`.

    `commit` serves torch.distributed.checkpoint.save, which calls `finish` on its coordinator when all packs
    are durable: it gets the manifest's packs and tensors.
    """

    def __init__(
        self,
        location: Location,
        name: CheckpointName,
        rank: int,
        level: int,
        commit: Callable[[tuple[Pack, ...], dict[str, Tensor]], None] | None = None,
    ) -> None:
        self._name = name
        self._uploader = Uploader(location, rank, level=level, uploads=1, whole_every=1)
        self._commit = commit

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing to do: a writer serves one save."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Raises CheckpointError on a machine whose numbers the format does not hold."""
        if sys.byteorder != "little":
            raise CheckpointError("checkpoints are little-endian; this machine is not")

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """DCP's plan serves."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """DCP's plans serve."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes the packs, durable on return. A rank with nothing to write makes none."""
        items = [(i, cast(torch.Tensor, planner.resolve_data(i))) for i in plan.items]
        boxes = [box_of(item, content(tensor)) for item, tensor in items]
        uploaded = self._uploader.upload(boxes, self._name, {}, lambda: None)
        future: Future[list[WriteResult]] = Future()
        # The first result carries the rank's piece of the manifest to the coordinator.
        carried = [uploaded.piece, *(None for _ in boxes[1:])]
        future.set_result(
            [
                WriteResult(item.index, tensor.nbytes, piece)
                for (item, tensor), piece in zip(items, carried, strict=False)
            ]
        )
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Describes all ranks' packs and commits."""
        if self._commit is not None:
            self._commit(*assemble(rank[0].storage_data for rank in results if rank))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """A writer is made for one save; DCP never chooses it by an id."""
        return False


class PackStorageReader(StorageReader):
    """Reads chunks of the checkpoint that `manifest` describes, each verified before it is handed on."""

    def __init__(self, location: Location, manifest: Manifest) -> None:
        self._location = location
        self._manifest = manifest

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing to do: a reader serves one load."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """DCP's metadata, from the manifest."""
        return metadata_of(self._manifest)

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Raises CheckpointError on a machine whose numbers the format does not hold."""
        if sys.byteorder != "little":
            raise CheckpointError("checkpoints are little-endian; this machine is not")

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """DCP's plan serves."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """DCP's plans serve."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copies each chunk, or the part of it that is wanted, straight into the state's tensors.

        Raises DamagedError naming the item and the checkpoint; tensors read before it are then loaded
        already, so the caller must load another checkpoint over them or give up.
        """
        chunks = {
            (key, chunk.offsets): Wanted(key, chunk)
            for key, tensor in self._manifest.tensors.items()
            for chunk in tensor.chunks
        }
        readers: dict[tuple[str, tuple[int, ...]], list[ReadItem]] = {}
        for item in plan.items:
            if item.type != LoadItemType.TENSOR:
                raise CheckpointError(f"{item.storage_index.fqn}: pickled objects are not loaded")
            place = (item.storage_index.fqn, tuple(item.storage_index.offset or ()))
            readers.setdefault(place, []).append(item)
        for wanted, data in read_chunks(self._location, self._manifest, [chunks[p] for p in readers]):
            box = _tensor(data, self._manifest.tensors[wanted.tensor].dtype, wanted.chunk)
            for item in readers[(wanted.tensor, wanted.chunk.offsets)]:
                part = box
                for dim, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                    part = part.narrow(dim, start, length)
                destination = planner.resolve_tensor(item).detach()
                destination.copy_(part)
                planner.commit_tensor(item, destination)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """A reader is made for one load; DCP never chooses it by an id."""
        return False


def content(tensor: torch.Tensor) -> memoryview:
    """The tensor's bytes, row-major, on the CPU; no copy where it lies so already."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.is_conj() or flat.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    return memoryview(cast(Any, flat.view(torch.uint8).numpy()))


def _tensor(data: memoryview, dtype: str, chunk: Chunk) -> torch.Tensor:
    kind = getattr(torch, dtype)
    if not data.nbytes:
        return torch.empty(chunk.sizes, dtype=kind)
    return torch.frombuffer(bytearray(data), dtype=kind).reshape(chunk.sizes)


def dtype_name(dtype: torch.dtype) -> str:
    """As the manifest spells it, `float32`."""
    return str(dtype).removeprefix("torch.")


def metadata_of(manifest: Manifest) -> Metadata:
    """DCP's metadata for the tensors of a manifest. Raises DamagedError for a type that torch lacks."""
    found: dict[str, Any] = {}
    for key, tensor in manifest.tensors.items():
        dtype = getattr(torch, tensor.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise DamagedError(f"{manifest.name}: {key}: {tensor.dtype!r} is not a type of numbers")
        boxes = [ChunkStorageMetadata(torch.Size(c.offsets), torch.Size(c.sizes)) for c in tensor.chunks]
        properties = TensorProperties(dtype=dtype)
        found[key] = TensorStorageMetadata(properties, torch.Size(tensor.size), boxes)
    return Metadata(found)
