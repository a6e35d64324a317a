"""One checkpoint into a state, in place. Not here: which checkpoint (checkpointer.py), saving (saving/)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch.distributed.checkpoint.planner import LoadPlan

from aurl_trainer.checkpoint.parts import Part
from aurl_trainer.checkpoint.reading.dcp import PackStorageReader, TensorLoadPlanner, metadata_of
from aurl_trainer.checkpoint.reading.fit import compare, tensors_of
from aurl_trainer.checkpoint.reading.memory import Loaded, Measurement
from aurl_trainer.checkpoint.tree import assign, join, split
from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.reading import Objects

State = Mapping[str, Any]
"""By name, parts or plain trees (dicts, lists, tensors, plain values)."""


def read(
    state: State, objects: Objects, manifest: Manifest, alive: Callable[[], None] = lambda: None
) -> Loaded:
    """Loads one checkpoint into this rank's `state`, in place, streamed; every chunk is verified.

    `alive` is called again and again while bytes come, so that a long load is not taken for a hang. No
    collectives: ranks agree afterwards. Raises DamagedError, after which the state holds parts of this
    checkpoint and needs another one, or CheckpointError when the checkpoint does not fit the state.
    """
    begun = Measurement()
    target: dict[str, Any] = {}
    # All targets before any byte is read: making an optimizer's state takes a step on the weights.
    for key, value in state.items():
        inside = [k.removeprefix(f"{key}.") for k in manifest.tensors if k.startswith(f"{key}.")]
        target[key] = value.target(inside) if isinstance(value, Part) else value
    tensors, _ = split(target)
    problems = compare(tensors, tensors_of(manifest, state)).lines()
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"{manifest.name} does not fit this model: {'; '.join(problems[:5])}{more}")
    content, stored = read_tensors(tensors, objects, manifest, alive)
    scalars = manifest.scalars if isinstance(manifest.scalars, dict) else {}
    for key, value in state.items():
        loaded = join(scalars.get(key, {}), tensors)
        if isinstance(value, Part):
            value.adopt(loaded)
        elif isinstance(value, dict):
            assign(value, loaded)
    return begun.end(content, stored)


def read_tensors(
    tensors: Mapping[str, torch.Tensor],
    objects: Objects,
    manifest: Manifest,
    alive: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """Loads the tensors of these keys in place; they must fit. Returns bytes of content and bytes read."""
    planner = TensorLoadPlanner()
    reader = PackStorageReader(objects, manifest, alive)
    metadata = metadata_of(manifest)
    planner.set_up_planner(cast(dict[str, Any], tensors), metadata, True)
    reader.set_up_storage_reader(metadata, True)
    plan: LoadPlan = planner.finish_plan(reader.prepare_local_plan(planner.create_local_plan()))
    with torch.no_grad():
        reader.read_data(plan, planner).wait()
    return reader.content_bytes, reader.stored_bytes
