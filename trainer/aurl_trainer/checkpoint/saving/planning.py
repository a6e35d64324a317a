"""Which rank saves which box of which tensor: DCP's plan, made again only when the state has changed.

Not here: DCP's planner and what it refuses (dcp.py), the copy (staging.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch.distributed.checkpoint.planner import SavePlan, WriteItem
from torch.distributed.tensor import DTensor

from aurl_trainer.checkpoint.agreement import Ranks, caught
from aurl_trainer.checkpoint.dcp import TensorSavePlanner


class Plans:
    """This rank's part of a save, and the memory of what it was planned for."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._planner = TensorSavePlanner()
        self._items: list[WriteItem] = []
        self._tensors: Mapping[str, torch.Tensor] = {}
        self._shape: dict[str, Any] | None = None

    def take(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Takes the tensors to save; whether they can be saved as planned before. No collective."""
        self._tensors = tensors
        shape = {key: _shape(tensor) for key, tensor in tensors.items()}
        known = self._shape == shape
        self._shape = shape
        return known

    def make(self) -> None:
        """Plans anew with all ranks. Raises CheckpointError on all of them if one cannot."""
        shape, self._shape = self._shape, None
        self._set_up()
        plans = self._ranks.together(caught(self._planner.create_local_plan))

        def divide() -> list[SavePlan]:
            return self._planner.create_global_plan(plans)[0]

        divided = self._ranks.first(caught(divide))
        self._items = list(self._planner.finish_plan(divided[self._ranks.rank]).items)
        self._shape = shape

    def boxes(self) -> list[tuple[WriteItem, torch.Tensor]]:
        """What this rank saves: live tensors, or views into them."""
        if any(isinstance(self._tensors[i.index.fqn], DTensor) for i in self._items):
            self._set_up()
        return [(i, self._resolve(i)) for i in self._items]

    def _resolve(self, item: WriteItem) -> torch.Tensor:
        tensor = self._tensors[item.index.fqn]
        if isinstance(tensor, DTensor):
            tensor = cast(torch.Tensor, self._planner.resolve_data(item))
        return tensor.detach() if tensor.requires_grad else tensor

    def _set_up(self) -> None:
        self._planner.set_up_planner(cast(dict[str, Any], self._tensors), None, self._ranks.rank == 0)


def _shape(tensor: torch.Tensor) -> tuple[Any, ...]:
    """All that a plan depends on."""
    plain = (tensor.dtype, tuple(tensor.shape))
    if isinstance(tensor, DTensor):
        return (*plain, tensor.placements, tensor.device_mesh, tuple(tensor.to_local().shape))
    return plain
