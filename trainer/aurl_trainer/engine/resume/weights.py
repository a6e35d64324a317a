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
    """A digest of all weights, and what is wrong with them.

    None: the model is sharded, and no rank has them all. The manifest's hashes are of the pieces that were
    saved: no digest of wholes follows from them, and one over them would repeat the manifest's own.
    """

    digest: str | None
    problem: str | None = None


def examine(model: Mapping[str, torch.Tensor], manifest: Manifest, part: str) -> Weights:
    """Hashes the tensors of `model`, by name, and compares each with the chunks saved as `part`.name.

    Equal weights have the same digest, whatever number of ranks has saved them.
    """
    if any(isinstance(tensor, DTensor) for tensor in model.values()):
        return Weights(None)
    digest = hashlib.sha256()
    problem = None
    for name in sorted(model):
        tensor = model[name].detach()
        saved = manifest.tensors.get(f"{part}.{name}")
        whole: str | None = None
        for chunk in saved.chunks if saved is not None else ():
            box = tensor
            for dim, (start, length) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
                box = box.narrow(dim, start, length)
            found = hashlib.sha256(content(box)).hexdigest()
            whole = found if box.shape == tensor.shape else None
            if found != chunk.hash and problem is None:
                problem = f"{name} as loaded is not what {manifest.name} holds"
        whole = whole or hashlib.sha256(content(tensor)).hexdigest()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} {whole}\n".encode())
    return Weights(f"sha256:{digest.hexdigest()}", problem)
