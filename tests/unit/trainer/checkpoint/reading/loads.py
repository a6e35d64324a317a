"""A process of its own that loads a checkpoint and tells what its memory did: `python loads.py URI BYTES`."""

from __future__ import annotations

import json
import resource
import sys

import torch

from aurl_trainer.checkpoint.parts import ModelPart
from aurl_trainer.checkpoint.transfer import read
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore


class Wide(torch.nn.Module):
    """Two large weights; written to, so that their memory is really there."""

    def __init__(self, size: int, value: float) -> None:
        super().__init__()
        side = size // 8 // 1024
        self.first = torch.nn.Parameter(torch.full((side, 1024), value))
        self.second = torch.nn.Parameter(torch.full((1024, side), value))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(uri: str, size: int) -> None:
    store = RunStore(Location(uri))
    manifest = store.manifest(store.valid()[-1])
    model = Wide(size, 0.0)
    # Whatever a first load imports is not what is measured.
    read({}, store.location, manifest)
    before = peak()
    loaded = read({"model": ModelPart(model)}, store.location, manifest)
    told = {"before": before, "after": peak(), "content": loaded.content, "said": loaded.peak}
    told["first"] = float(model.first.detach()[-1, -1])
    told["second"] = float(model.second.detach()[-1, -1])
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
