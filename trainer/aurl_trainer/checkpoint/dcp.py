"""torch.distributed.checkpoint onto our store: planner and writer.

DCP plans what each rank writes, sharding included. Ours are the bytes: packs of each rank. Only tensors pass:
DCP would pickle everything else. Not here: reading (reading/), commit, generations and agreement
(checkpointer.py); these classes also work below torch.distributed.checkpoint.save.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, cast

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    Metadata,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    SavePlanner,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from aurl_trainer.checkpoint.saving.staging import box_of
from aurl_trainer.checkpoint.saving.upload import Uploader
from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.format.manifest import Pack, Tensor
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.pieces import assemble
from aurl_trainer.store.location.place import Location


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


def content(tensor: torch.Tensor) -> memoryview:
    """The tensor's bytes, row-major, on the CPU; no copy where it lies so already."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.is_conj() or flat.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    return memoryview(cast(Any, flat.view(torch.uint8).numpy()))


def dtype_name(dtype: torch.dtype) -> str:
    """As the manifest spells it, `float32`."""
    return str(dtype).removeprefix("torch.")
