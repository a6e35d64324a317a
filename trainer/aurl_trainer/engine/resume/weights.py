"""The weights as they lie in the model after a load, against what the manifest says of them.

Every chunk was verified before it was copied; this looks at the other end, behind whatever torch did with it.
Not here: loading (checkpoint/).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.distributed.tensor import DTensor

from aurl_trainer.checkpoint.dcp import content
from aurl_trainer.store.format.manifest import Manifest


@dataclass(frozen=True)
class Weights:
    """A digest of all weights, and what is wrong with them. None: sharded, so that no rank has them all."""

    digest: str | None
    problem: str | None = None


def examine(model: Mapping[str, torch.Tensor], manifest: Manifest, part: str) -> Weights:
    """Hashes the tensors of `model`, by name, and compares each with the chunks saved as `part`.name."""
    if any(isinstance(tensor, DTensor) for tensor in model.values()):
        return Weights(None)
    digest = hashlib.sha256()
    problem = None
    for name in sorted(model):
        saved = manifest.tensors.get(f"{part}.{name}")
        for chunk in saved.chunks if saved is not None else ():
            box = model[name].detach()
            for dim, (start, length) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
                box = box.narrow(dim, start, length)
            found = hashlib.sha256(content(box)).hexdigest()
            digest.update(f"{name} {chunk.offsets} {found}\n".encode())
            if found != chunk.hash and problem is None:
                problem = f"{name} as loaded is not what {manifest.name} holds"
    return Weights(f"sha256:{digest.hexdigest()}", problem)
