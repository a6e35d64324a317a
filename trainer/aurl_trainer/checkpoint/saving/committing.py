"""From the pieces of all ranks to the manifest of a checkpoint, on rank 0 and in the thread of a save.

Not here: when it is committed (saver.py), what lies on the store (store/format/).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from aurl_trainer.checkpoint.saving.flight import Flight
from aurl_trainer.store.format.manifest import FORMAT, VERSION, Manifest
from aurl_trainer.store.format.names import CheckpointName, GenerationId
from aurl_trainer.store.format.pieces import Piece, assemble
from aurl_trainer.store.format.versions import code_versions
from aurl_trainer.store.location.place import Location

PIECE_WAITS = (0.01, 1.0)
"""Seconds between two looks for a rank's piece: at first, and at most."""


@dataclass(frozen=True)
class Owner:
    """Who saves: the fields that all manifests of a generation share."""

    run: str
    identity: dict[str, Any]
    generation: GenerationId


@dataclass(frozen=True)
class Plain:
    """What a manifest says besides tensors: see Manifest."""

    scalars: Any
    extra: Any
    metrics: dict[str, float | None]


def await_piece(location: Location, flight: Flight, rank: int) -> Piece:
    """What another rank has to tell. Raises CheckpointError when the save is given up before it comes."""
    wait, longest = PIECE_WAITS
    while True:
        flight.check()
        try:
            return Piece.parse(location.get(flight.name.piece(rank)), str(flight.name), rank)
        except FileNotFoundError:
            time.sleep(wait)
            wait = min(2 * wait, longest)


def manifest_of(owner: Owner, name: CheckpointName, pieces: list[Piece], plain: Plain) -> Manifest:
    """The manifest of a save; `pieces` in the order of ranks."""
    packs, tensors = assemble(pieces)
    return Manifest(
        format=FORMAT,
        version=VERSION,
        name=str(name),
        number=name.number,
        step=name.step,
        generation=name.generation.number,
        nonce=name.generation.nonce,
        run=owner.run,
        at=time.time(),
        world=len(pieces),
        identity=owner.identity,
        versions=code_versions(),
        metrics=plain.metrics,
        extra=plain.extra,
        scalars=plain.scalars,
        packs=packs,
        tensors=tensors,
    )
