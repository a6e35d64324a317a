"""torch.distributed.checkpoint out of our store: planner and reader.

DCP plans what each rank reads, resharding included; its metadata is rebuilt from the manifest, since its own
is a pickle. The bytes go straight into the state's tensors (placing.py). Not here: what is read for which
part of a state (transfer.py); these classes also work below torch.distributed.checkpoint.load.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from aurl_trainer.checkpoint.reading.placing import Box, Placer
from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.reading import Objects, Wanted, stream


class TensorLoadPlanner(DefaultLoadPlanner):
    """DCP's planner for a flat state of tensors."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False)

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Always refuses: DCP would unpickle it."""
        raise CheckpointError(f"{read_item.dest_index.fqn}: not a tensor; pickled objects are not loaded")


class PackStorageReader(StorageReader):
    """Reads chunks of the checkpoint that `manifest` describes; `objects` holds its packs.

    `alive` is called with each piece. `content_bytes` counts what went into tensors, `stored_bytes` what was
    read for it.
    """

    def __init__(
        self, objects: Objects, manifest: Manifest, alive: Callable[[], None] = lambda: None
    ) -> None:
        self._objects = objects
        self._manifest = manifest
        self._alive = alive
        self.content_bytes = 0
        self.stored_bytes = 0

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
        """Streams each chunk, or the part of it that is wanted, straight into the state's tensors.

        Raises DamagedError naming the item and the checkpoint; what was read before it is then in place
        already, so the caller must load another checkpoint over it or give up.
        """
        chunks = {
            (key, chunk.offsets): Wanted(key, chunk)
            for key, tensor in self._manifest.tensors.items()
            for chunk in tensor.chunks
        }
        boxes: dict[tuple[str, tuple[int, ...]], list[Box]] = {}
        for item in plan.items:
            if item.type != LoadItemType.TENSOR:
                raise CheckpointError(f"{item.storage_index.fqn}: pickled objects are not loaded")
            place = (item.storage_index.fqn, tuple(item.storage_index.offset or ()))
            boxes.setdefault(place, []).append(_box(item, planner))
        placer: Placer | None = None
        for piece in stream(self._objects, self._manifest, [chunks[p] for p in boxes]):
            self._alive()
            key, chunk = piece.item.tensor, piece.item.chunk
            if piece.at == 0:
                dtype = getattr(torch, self._manifest.tensors[key].dtype)
                placer = Placer(dtype, chunk.sizes, boxes[(key, chunk.offsets)])
            assert placer is not None
            placer.add(piece.data)
            self.content_bytes += piece.data.nbytes
            self.stored_bytes += piece.stored
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """A reader is made for one load; DCP never chooses it by an id."""
        return False


def _box(item: ReadItem, planner: LoadPlanner) -> Box:
    tensor = planner.resolve_tensor(item).detach()
    return Box(tuple(item.storage_offsets), tuple(item.lengths), tensor)


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
