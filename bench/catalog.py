"""How long `aurl checkpoints` takes to start, and to find among many: python -m bench.catalog

Each command is a process of its own, as a person starts it; the store is a folder of this disk, so the
figures are Aurl's own time. Prints a line a command: the median and the greatest of the repetitions, seconds;
the processor's time, which other work on the machine disturbs less; and that as a multiple of what a program
of one typer command with one argument takes, in the same run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aurl_trainer.store.format.manifest import FORMAT, VERSION, Chunk, Manifest, Pack, Tensor
from aurl_trainer.store.format.names import CheckpointName, Fence, GenerationId
from aurl_trainer.store.location.place import Location

BARE = """
import typer
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
@app.command()
def main(run: str) -> None:
    typer.echo(run)
app()
"""

TENSORS = 300
"""As many as a transformer of 12 layers has with its optimizer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--checkpoints", type=int, default=5, help="of each run")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.runs):
            make_run(f"{folder}/run-{number:04d}", options.checkpoints)
        one, every = f"{folder}/run-0000", folder
        condition = [
            "--where",
            "val_nll < 0.5 and preset = 'quick_test'",
            "--sort",
            "val_nll",
            "--limit",
            "5",
        ]
        print(f"{options.runs} runs of {options.checkpoints} checkpoints, {TENSORS} tensors each")
        bare = measure("a bare typer command", [sys.executable, "-c", BARE, "run"], options.repeat)
        measure("the interpreter alone", [sys.executable, "-c", "pass"], options.repeat, bare)
        measure("checkpoints --help", aurl("--help"), options.repeat, bare)
        measure("checkpoints list RUN, no index", aurl("list", one), options.repeat, bare)
        measure("checkpoints find URL, no index", aurl("find", every, *condition), options.repeat, bare)
        subprocess.run(aurl("index", every), check=True, stdout=subprocess.DEVNULL)
        measure("checkpoints list RUN", aurl("list", one), options.repeat, bare)
        measure("checkpoints show RUN", aurl("show", one), options.repeat, bare)
        measure("checkpoints find URL", aurl("find", every, *condition), options.repeat, bare)


def aurl(*words: str) -> list[str]:
    return [sys.executable, "-m", "aurl_operator", "checkpoints", *words]


def measure(what: str, command: list[str], repeat: int, bare: float | None = None) -> float:
    """Prints a line; returns the median of the processor's seconds."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # warms the disk's cache
    seconds, busy = [], []
    for _ in range(repeat):
        began, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
        after = os.times()
        busy.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    own = statistics.median(busy)
    print(
        f"{what:<34} median {statistics.median(seconds):.3f}  greatest {max(seconds):.3f}  "
        f"processor {own:.3f}{'' if bare is None else f'  {own / bare:.2f} x bare typer'}",
        flush=True,
    )
    return own


def make_run(url: str, checkpoints: int) -> None:
    place = Location(url)
    generation = GenerationId(1, "00000000")
    for fence in (Fence(generation), Fence(generation, True)):
        place.put(fence.object, b"{}")
    digest = "0" * 64
    for number in range(1, checkpoints + 1):
        name = CheckpointName(number, 100 * number, generation)
        tensors = {
            f"model.blocks.{n}.weight": Tensor(
                dtype="float32",
                size=(2,),
                chunks=(Chunk(offsets=(0,), sizes=(2,), pack=0, at=8 * n, bytes=8, hash=digest),),
            )
            for n in range(TENSORS)
        }
        experiment = {"from_preset": "quick_test", "model": {"dim": 64 + number}, "seed": 1}
        manifest = Manifest(
            format=FORMAT, version=VERSION, name=str(name), number=number, step=name.step, generation=1,
            nonce=generation.nonce, run=Path(url).name, at=1.7e9 + number, world=1, identity={"seed": 1},
            versions={"aurl": "0"}, metrics={"val_nll": 1.0 / number}, extra={"experiment": experiment},
            scalars={}, packs=(Pack(path=name.pack(0), bytes=8 * TENSORS),), tensors=tensors,
        )  # fmt: skip
        place.put(name.pack(0), bytes(8 * TENSORS))
        place.put(name.manifest, manifest.to_bytes())


if __name__ == "__main__":
    main()
