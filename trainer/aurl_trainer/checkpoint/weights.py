"""Which weights of a checkpoint are meant, and what it says about the model they belong to. Pure.

A checkpoint may hold averaged weights beside the model's own; the run is judged by one of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.plain import decode

MODEL = "model"
AVERAGE = "average"
"""The names under which the training loop saves the model's weights and their average, key by key alike."""

Weights = Literal["judged", "model", "average"]
"""`judged`: those that the run validates and samples with."""


def part_of(manifest: Manifest, weights: Weights) -> Literal["model", "average"]:
    """The part of the state that holds them. Raises CheckpointError when averages are not in it."""
    has_average = any(k.startswith(f"{AVERAGE}.") for k in manifest.tensors)
    if weights == "average" and not has_average:
        raise CheckpointError(
            f"{manifest.name} holds no averaged weights: the run has engine.average.kind none, "
            "or its average had not begun"
        )
    if weights == "judged":
        weights = "average" if has_average and _judged_by_average(manifest) else "model"
    return weights


def _judged_by_average(manifest: Manifest) -> bool:
    found: Any = decode(manifest.extra)
    for key in ("experiment", "engine", "average", "use"):
        found = found.get(key) if isinstance(found, dict) else None
    return found is True


@dataclass(frozen=True)
class Vocabulary:
    """What tells whether two models mean the same by a token; None: it is not said.

    `meanings`: SHA-256 of what each id means. `file`: of the tokenizer's file, which also names the versions
    of libraries, and so may differ where nothing else does.
    """

    meanings: str | None = None
    file: str | None = None

    def same(self, other: Vocabulary) -> bool | None:
        """Whether they are the same, by the best that both say; None if they say nothing comparable."""
        for mine, theirs in ((self.meanings, other.meanings), (self.file, other.file)):
            if mine is not None and theirs is not None:
                return mine == theirs
        return None


def vocabulary_of(manifest: Manifest) -> Vocabulary:
    """That of the tokenizer which its model knows, as far as the checkpoint says."""
    extra: Any = decode(manifest.extra)

    def said(part: str, name: str) -> str | None:
        found = extra.get(part) if isinstance(extra, dict) else None
        found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, str) else None

    return Vocabulary(said("prepared", "vocabulary"), said("model", "tokenizer"))
