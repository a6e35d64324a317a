"""What a world takes to open a run that keeps many checkpoints: python -m bench.opening

The checkpoints are small (two numbers a tensor), their manifests as large as those of a real model. Each
world is a process of its own, on a folder of this disk. Prints a line a world: seconds until it may train,
and until it has swept as well; the processor's seconds; by how much its memory has grown, at its peak and
after.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.config.checkpoint import CheckpointConfig, KeepConfig
from aurl_trainer.store.catalog.index import OBJECT
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=1000)
    parser.add_argument("--tensors", type=int, default=600, help="of each checkpoint")
    parser.add_argument("--world", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.world:
        open_world(options.world, options.tensors, options.checkpoints)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_run(folder, options.checkpoints, options.tensors)
        size = sum(f.stat().st_size for f in Path(folder, "manifests").iterdir())
        print(f"{options.checkpoints} checkpoints of {options.tensors} tensors: {size / 1e6:,.1f} MB")
        place = Location(folder)
        for what in ("without an index", "with its index"):
            place.delete([OBJECT] if what == "without an index" else [])
            print(f"{what:<18}", end="", flush=True)
            command = [sys.executable, "-m", "bench.opening", "--world", folder]
            sizes = ["--checkpoints", str(options.checkpoints), "--tensors", str(options.tensors)]
            subprocess.run([*command, *sizes], check=True)


def checkpointer(url: str, checkpoints: int) -> Checkpointer:
    keep = KeepConfig(latest=2 * checkpoints)
    return Checkpointer(
        url, run="bench", fingerprint={"seed": 1}, settings=CheckpointConfig(keep=keep), rank=0, world=1
    )


def state(tensors: int) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {f"blocks.{n}.attention.projection.weight": torch.full((2,), n) for n in range(tensors)}}


def make_run(url: str, checkpoints: int, tensors: int) -> None:
    """One real save, and later ones that are copies of it under names of their own."""
    opener = checkpointer(url, checkpoints)
    opener.open({})
    opener.save(1, state(tensors), {"experiment": {"seed": 1}}, {"val_nll": 1.0})
    store = RunStore(Location(url))
    first = store.manifest(store.valid()[0])
    content = store.location.get(first.packs[0].path)
    for number in range(2, checkpoints + 1):
        name = CheckpointName(number, number, first.checkpoint.generation)
        pack = first.packs[0].model_copy(update={"path": name.pack(0)})
        fields = {"name": str(name), "number": number, "step": number, "at": first.at + number}
        manifest: Manifest = first.model_copy(update={**fields, "packs": (pack,)})
        store.location.put(pack.path, content)
        store.location.put(name.manifest, manifest.to_bytes())


def open_world(url: str, tensors: int, checkpoints: int) -> None:
    opener, loaded = checkpointer(url, checkpoints), state(tensors)
    before, began, worked = memory(), time.perf_counter(), time.process_time()
    restored = opener.open(loaded).restored
    opened = time.perf_counter() - began
    opener.saver.tidy()
    swept = time.perf_counter() - began
    assert restored is not None
    assert restored.step == checkpoints
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(
        f"opened {opened:7.2f} s  swept {swept:7.2f} s  processor {time.process_time() - worked:7.2f} s  "
        f"memory +{peak - before:7.1f} MB at its peak, +{memory() - before:7.1f} MB after"
    )


def memory() -> float:
    """Of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main()
