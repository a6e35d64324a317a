"""Weights of a run into a model, for sampling, evaluation and reports. Writes nothing, needs no group."""

from __future__ import annotations

import logging

import torch

from aurl_trainer.checkpoint.parts import ModelPart
from aurl_trainer.checkpoint.transfer import read
from aurl_trainer.checkpoint.weights import Weights, part_of
from aurl_trainer.config.reference import Latest, Which
from aurl_trainer.errors import DamagedError
from aurl_trainer.store.choose import chosen, first_whole
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore

log = logging.getLogger(__name__)


def open_manifest(uri: str, which: Which = Latest()) -> Manifest:
    """The manifest of the checkpoint at `uri` that `which` means, unread but for itself.

    What a model must be built like: `identity` and `extra`. Raises CheckpointError when there is none.
    """
    return chosen(RunStore(Location(uri)), which)


def load_weights(
    uri: str, model: torch.nn.Module, which: Which = Latest(), weights: Weights = "judged"
) -> Manifest:
    """Loads weights from the checkpoint at `uri` that `which` means.

    `weights`: those that the run is judged by, the model's own, or the averaged ones; no other bytes are
    read. For the latest and the best a damaged one is passed over with a warning.
    Raises CheckpointError when there is no checkpoint, or it does not fit the model, and DamagedError when
    none is whole.
    """
    store = RunStore(Location(uri))

    def load(manifest: Manifest) -> Manifest:
        load_manifest(store.location, manifest, model, weights)
        return manifest

    return first_whole(store, which, load, warn)


def load_manifest(
    location: Location, manifest: Manifest, model: torch.nn.Module, weights: Weights = "judged"
) -> None:
    """Loads weights of one checkpoint at `location`. Raises DamagedError, and as `load_weights`."""
    read({part_of(manifest, weights): ModelPart(model)}, location, manifest)


def warn(name: CheckpointName, damage: DamagedError) -> None:
    """Tells of a checkpoint that is passed over."""
    log.warning("checkpoint of step %d is damaged and passed over: %s", name.step, damage)
