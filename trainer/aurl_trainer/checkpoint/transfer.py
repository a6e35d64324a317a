"""One checkpoint into a state, in place. Not here: which checkpoint (checkpointer.py), saving (saving/)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch.distributed.checkpoint.planner import LoadPlan

from aurl_trainer.checkpoint.dcp import (
    PackStorageReader,
    TensorLoadPlanner,
    dtype_name,
    metadata_of,
)
from aurl_trainer.checkpoint.parts import Part
from aurl_trainer.checkpoint.tree import assign, join, split
from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.location import Location

State = Mapping[str, Any]
"""By name, parts or plain trees (dicts, lists, tensors, plain values)."""


def read(state: State, location: Location, manifest: Manifest) -> None:
    """Loads one checkpoint into this rank's `state`, in place; every chunk is verified before it is copied.

    No collectives: ranks agree afterwards. Raises DamagedError, after which the state holds parts of this
    checkpoint and needs another one, or CheckpointError when the checkpoint does not fit the state.
    """
    target: dict[str, Any] = {}
    # All targets before any byte is read: making an optimizer's state takes a step on the weights.
    for key, value in state.items():
        inside = [k.removeprefix(f"{key}.") for k in manifest.tensors if k.startswith(f"{key}.")]
        target[key] = value.target(inside) if isinstance(value, Part) else value
    tensors, _ = split(target)
    _check_fit(tensors, manifest, sorted(state))
    planner = TensorLoadPlanner()
    reader = PackStorageReader(location, manifest)
    metadata = metadata_of(manifest)
    planner.set_up_planner(cast(dict[str, Any], tensors), metadata, True)
    reader.set_up_storage_reader(metadata, True)
    plan: LoadPlan = planner.finish_plan(reader.prepare_local_plan(planner.create_local_plan()))
    with torch.no_grad():
        reader.read_data(plan, planner).wait()
    scalars = manifest.scalars if isinstance(manifest.scalars, dict) else {}
    for key, value in state.items():
        loaded = join(scalars.get(key, {}), tensors)
        if isinstance(value, Part):
            value.adopt(loaded)
        elif isinstance(value, dict):
            assign(value, loaded)


def _check_fit(tensors: Mapping[str, torch.Tensor], manifest: Manifest, parts: list[str]) -> None:
    """Raises CheckpointError naming what is missing, too much, or of another shape or type."""
    saved = {k: t for k, t in manifest.tensors.items() if k.partition(".")[0] in parts}
    problems = [f"{k} is not in the checkpoint" for k in tensors.keys() - saved.keys()]
    problems += [f"{k} is only in the checkpoint" for k in saved.keys() - tensors.keys()]
    for key in tensors.keys() & saved.keys():
        here = (dtype_name(tensors[key].dtype), tuple(tensors[key].shape))
        there = (saved[key].dtype, saved[key].size)
        if here != there:
            problems.append(f"{key} is {there[0]}{list(there[1])} there and {here[0]}{list(here[1])} here")
    if problems:
        problems.sort()
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"{manifest.name} does not fit this model: {'; '.join(problems[:5])}{more}")
