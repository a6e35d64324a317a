"""Whether a run that was struck equals one that was not: samples, losses, validation, weights.

Not here: what is left of its processes (victims.py), how much each kill cost (losses.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aurl_trainer.contract import Cause, LedgerEntry, RunFile
from aurl_trainer.monitor.records import read_records
from aurl_trainer.store.format.reading import Wanted, stream
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify

SHOWN = 5
"""Differences of one kind that are spelt out; the others are counted."""


@dataclass(frozen=True)
class Trace:
    """What a run did. By step: the sample ids of all ranks, sorted, and the loss; the validation NLL.

    `disagreements` has one line for each step that ranks, or two generations that both did it, tell
    differently. A step in which a rank was killed before it told of it counts as far as it was told. `worlds`
    holds the size of each generation, by its number.
    """

    ids: dict[int, list[int]]
    loss: dict[int, float]
    validation: dict[int, float]
    worlds: dict[int, int]
    disagreements: list[str]

    @property
    def generations(self) -> int:
        """How many worlds have trained."""
        return len(self.worlds)


@dataclass(frozen=True)
class Result:
    """The final checkpoint: its name, and by key the SHA-256 of each tensor's content."""

    name: str
    tensors: dict[str, str]

    @property
    def digest(self) -> str:
        """One hash over all tensors, optimizer included."""
        return hashlib.sha256(repr(sorted(self.tensors.items())).encode()).hexdigest()


def trace(run: Path) -> Trace:
    """Reads a run's records."""
    return traced(read_records(run / RunFile.RECORDS, ("start", "audit", "evaluation")))


def traced(records: Iterable[Mapping[str, Any]]) -> Trace:
    """What the records of a run say."""
    worlds: dict[int, int] = {}
    passes: dict[tuple[int, int], dict[int, Mapping[str, Any]]] = {}
    found = Trace({}, {}, {}, worlds, [])
    for record in records:
        generation = record["generation"]
        if record["kind"] == "start":
            worlds[generation] = record["world"]
        elif record["kind"] == "audit":
            passes.setdefault((record["step"], generation), {})[record["rank"]] = record
        elif record["kind"] == "evaluation":
            step, value = record["step"], record["val_loss"]
            before = found.validation.setdefault(step, value)
            if before != value:
                found.disagreements.append(
                    f"step {step}: validation is {value} in generation {generation}, {before} before"
                )
    cut: list[tuple[int, int]] = []
    for (step, generation), ranks in sorted(passes.items()):
        losses = {record["loss"] for record in ranks.values()}
        if len(losses) != 1:
            found.disagreements.append(f"step {step}: ranks of generation {generation} differ: {losses}")
        if len(ranks) < worlds[generation]:
            cut.append((step, generation))
            continue
        samples, loss = sorted(i for record in ranks.values() for i in record["ids"]), min(losses)
        if (found.ids.setdefault(step, samples), found.loss.setdefault(step, loss)) != (samples, loss):
            found.disagreements.append(f"step {step}: generation {generation} differs from an earlier one")
    for step, generation in cut:
        for rank, record in passes[step, generation].items():
            same = record["loss"] == found.loss.get(step) and set(record["ids"]) <= set(
                found.ids.get(step, ())
            )
            if not same:
                found.disagreements.append(
                    f"step {step}: rank {rank} of generation {generation} tells another story"
                )
    return found


def result(run: Path) -> Result:
    """The run's final checkpoint, read byte by byte. Raises DamagedError if it is not whole."""
    store = RunStore(Location(str(run / RunFile.CHECKPOINTS)))
    name = store.valid()[-1]
    manifest = store.manifest(name)
    wanted = [Wanted(key, c) for key, tensor in manifest.tensors.items() for c in tensor.chunks]
    parts: dict[str, dict[tuple[int, ...], hashlib._Hash]] = {}
    for piece in stream(store.location, manifest, wanted):
        box = (*piece.item.chunk.offsets, *piece.item.chunk.sizes)
        parts.setdefault(piece.item.tensor, {}).setdefault(box, hashlib.sha256()).update(piece.data)
    tensors = {}
    for key, tensor in manifest.tensors.items():
        boxes = sorted((box, digest.hexdigest()) for box, digest in parts[key].items())
        content = [(tensor.dtype, tensor.size), *boxes]
        tensors[key] = hashlib.sha256(repr(content).encode()).hexdigest()
    return Result(str(name), tensors)


def damage(run: Path) -> list[str]:
    """One line for each thing that is wrong with any checkpoint the run has left, void ones included."""
    store = RunStore(Location(str(run / RunFile.CHECKPOINTS)))
    return [problem for name in store.committed() for problem in verify(store, name).problems]


def noticed(entries: Iterable[LedgerEntry]) -> list[str]:
    """One line for each incident that no kill may cause: a checkpoint damaged, a resume that differs."""
    never = (Cause.CHECKPOINT_DAMAGED, Cause.RESUME_MISMATCH)
    return [f"{e.cause}: {e.message}" for e in entries if e.kind == "incident" and e.cause in never]


def differences(expected: tuple[Trace, Result], found: tuple[Trace, Result]) -> list[str]:
    """One line for each thing in which a run differs from the undisturbed one, or from itself."""
    (calm, saved), (hard, kept) = expected, found
    lines = [*(f"undisturbed: {d}" for d in calm.disagreements), *hard.disagreements]
    lines += _compare("samples of step", calm.ids, hard.ids)
    lines += _compare("loss of step", calm.loss, hard.loss)
    lines += _compare("validation of step", calm.validation, hard.validation)
    lines += _compare("final tensor", saved.tensors, kept.tensors)
    return lines


def _compare(what: str, expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> list[str]:
    wrong = [
        k for k in {**expected, **found} if k not in expected or k not in found or expected[k] != found[k]
    ]
    lines = [f"{what} {k}: {found.get(k)} instead of {expected.get(k)}" for k in wrong[:SHOWN]]
    return lines + ([f"{what}: {len(wrong) - SHOWN} more differ"] if len(wrong) > SHOWN else [])
