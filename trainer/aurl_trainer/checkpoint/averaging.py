"""The mean of the weights of several checkpoints, and that mean as a checkpoint of its own.

Summed in float64, from the oldest parent to the newest, a bunch of tensors at a time: beside the result only
that bunch and a read-ahead are held. Not here: averages that training itself keeps (engine/state/), which
checkpoints are meant, and what the mean is worth (commands/checkpoints/derived/averaging.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.checkpoint.saving.outcomes import Saved
from aurl_trainer.checkpoint.weights import MODEL, vocabulary_of
from aurl_trainer.config.checkpoint import CheckpointConfig
from aurl_trainer.errors import CheckpointError, RefusedError
from aurl_trainer.store.choose import target
from aurl_trainer.store.export.layout import runs
from aurl_trainer.store.export.writing import part_tensors
from aurl_trainer.store.format.identity import differences
from aurl_trainer.store.format.manifest import Manifest, Tensor
from aurl_trainer.store.format.names import GENERATIONS
from aurl_trainer.store.format.plain import decode
from aurl_trainer.store.format.reading import Wanted, stream
from aurl_trainer.store.location.place import Location, shown
from aurl_trainer.store.presence import BEAT_SECONDS
from aurl_trainer.store.run_store import RunStore

BUNCH_BYTES = 64 * 2**20
"""Content of the tensors that are averaged at a time; one that is larger goes alone."""


@dataclass(frozen=True)
class Parent:
    """A checkpoint at `location` whose weights, of the part `weights`, go into a mean.

    `place`: the URL that opens `location`, with the password that it may carry: never shown.
    """

    location: Location
    manifest: Manifest
    weights: Literal["model", "average"]
    place: str = field(repr=False)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its weights by the model's own names."""
        return part_tensors(self.manifest, self.weights)

    def __str__(self) -> str:
        return f"{self.location.uri}@v{self.manifest.number} (step {self.manifest.step})"


def in_order(parents: Sequence[Parent]) -> list[Parent]:
    """From the oldest to the newest, by step and then by time; the last lends all that has no mean."""
    return sorted(parents, key=lambda p: (p.manifest.step, p.manifest.at, p.manifest.name))


def check_alike(parents: Sequence[Parent]) -> None:
    """Raises CheckpointError naming the first that is of another tokenizer, model, shape or type."""
    newest = in_order(parents)[-1]
    tensors = newest.tensors
    for other in in_order(parents)[:-1]:
        pair = f"{other} does not go with {newest}"
        if vocabulary_of(other.manifest).same(vocabulary_of(newest.manifest)) is False:
            raise CheckpointError(f"{pair}: it is of another tokenizer")
        lines = differences(_model_config(other.manifest), _model_config(newest.manifest), "model")
        there = other.tensors
        lines += [f"{k} is only in one of them" for k in sorted(there.keys() ^ tensors.keys())]
        for key in sorted(there.keys() & tensors.keys()):
            a, b = there[key], tensors[key]
            if (a.dtype, a.size) != (b.dtype, b.size):
                lines.append(f"{key} is {a.dtype}{list(a.size)} -> {b.dtype}{list(b.size)}")
        if lines:
            more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
            raise CheckpointError(f"{pair}: {'; '.join(lines[:3])}{more}")


def mean(
    parents: Sequence[Parent], progress: Callable[[int], None] = lambda count: None
) -> dict[str, torch.Tensor]:
    """The mean by name, each tensor of its own type; whole numbers are the newest parent's.

    `progress` is told the bytes of content that were read. Raises DamagedError naming what is not whole, and
    CheckpointError when they are not alike or a store does not answer.
    """
    check_alike(parents)
    order = in_order(parents)
    newest = order[-1]
    made: dict[str, torch.Tensor] = {}
    for keys in _bunches(newest.tensors):
        sums: dict[str, torch.Tensor] = {}
        for parent in order:
            for key, tensor in _read(parent, keys, progress):
                if not (tensor.is_floating_point() or tensor.is_complex()):
                    sums[key] = tensor
                    continue
                wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
                sums[key] = sums[key].add_(wide) if key in sums else wide
        for key in keys:
            dtype = _dtype(newest.tensors[key])
            whole = not (dtype.is_floating_point or dtype.is_complex)
            made[key] = sums[key] if whole else sums[key].div_(len(order)).to(dtype)
    return made


def save_mean(
    weights: Mapping[str, torch.Tensor],
    parents: Sequence[Parent],
    uri: str,
    nlls: Sequence[float],
    nll: float | None,
) -> Saved:
    """Saves a mean as the only checkpoint of a run of its own at `uri`, at the newest parent's step.

    Its `extra` says what its model must be rebuilt like, as the newest parent does, and names the parents,
    with their NLLs in the same order where these were measured. Raises RefusedError if a run is there.
    """
    check_free(uri)
    newest = in_order(parents)[-1].manifest
    found = decode(newest.extra)
    about = ("seed", "experiment", "model", "prepared")
    extra = {k: found[k] for k in about if isinstance(found, dict) and k in found}
    measured: list[float | None] = [*nlls] if nlls else [None] * len(parents)
    extra["average_of"] = [
        {
            "uri": p.location.uri,
            "run": p.manifest.run,
            "checkpoint": p.manifest.name,
            "step": p.manifest.step,
            "weights": p.weights,
            "val_nll": value,
        }
        for p, value in zip(parents, measured, strict=True)
    ]
    saver = Checkpointer(
        uri,
        run=f"{newest.run}-average",
        fingerprint=newest.identity,
        settings=CheckpointConfig(),
        rank=0,
        world=1,
        beats=BEAT_SECONDS,
    )
    saver.probe()
    try:
        saver.open({})
        metrics = {} if nll is None else {"val_nll": nll}
        return saver.save(newest.step, {MODEL: dict(weights)}, extra, metrics)
    finally:
        saver.close()  # so that nobody who comes to this place waits for a run that has ended


def check_free(uri: str) -> None:
    """Raises RefusedError if a run has saved, or begun, at `uri`, or it is none to save to."""
    store = RunStore(target(uri))
    if store.committed() or store.location.names(GENERATIONS):
        raise RefusedError(f"{shown(uri)}: checkpoints are there already; name another place with --to")


def _model_config(manifest: Manifest) -> Any:
    found = decode(manifest.extra)
    experiment = found.get("experiment") if isinstance(found, dict) else None
    return (experiment or manifest.identity).get("model") or {}


def _bunches(tensors: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """The names of all tensors, in bunches of about BUNCH_BYTES."""
    bunch: list[str] = []
    held = 0
    for key, tensor in tensors.items():
        content = sum(tensor.content_bytes(c) for c in tensor.chunks)
        if bunch and held + content > BUNCH_BYTES:
            yield bunch
            bunch, held = [], 0
        bunch.append(key)
        held += content
    if bunch:
        yield bunch


def _read(
    parent: Parent, keys: Sequence[str], progress: Callable[[int], None]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Whole tensors of a parent, verified."""
    tensors = {f"{parent.weights}.{k}": parent.tensors[k] for k in keys}
    contents = {k: bytearray(sum(t.content_bytes(c) for c in t.chunks)) for k, t in tensors.items()}
    wanted = [Wanted(k, c) for k, t in tensors.items() for c in t.chunks]
    for piece in stream(parent.location, parent.manifest, wanted):
        key = piece.item.tensor
        for run in runs(tensors[key], piece.item.chunk, piece.at, piece.data.nbytes):
            data = piece.data[run.source : run.source + run.count]
            contents[key][run.target : run.target + run.count] = data
        progress(piece.data.nbytes)
    for name, key in zip(keys, tensors, strict=True):
        content = contents.pop(key)
        dtype = _dtype(tensors[key])
        flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        yield name, flat.reshape(tensors[key].size)


def _dtype(tensor: Tensor) -> torch.dtype:
    found = getattr(torch, tensor.dtype)
    assert isinstance(found, torch.dtype)  # the manifest's types are torch's names
    return found
