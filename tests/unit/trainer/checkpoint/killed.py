"""Ranks that save without end until they are killed: `python -m ...killed URL WORLD`, one kill a line.

A line is a number of saves, a delay in seconds, and a rank. Children are forked, open the run, and save
beside what stands for training. When so many saves are committed and the delay has passed SIGKILL takes that
rank, and then the others. Forking spares the import of torch for each kill.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from aurl_trainer.config.checkpoint import KeepConfig
from tests.unit.trainer.checkpoint.small import checkpointer


def state_of(step: int) -> dict[str, Any]:
    """What is saved at a step: 200 kB that the step decides, 100 kB that never change, and its number."""
    generator = torch.Generator().manual_seed(step)
    noise = {str(i): torch.randn(5000, generator=generator) for i in range(10)}
    frozen = torch.randn(25_000, generator=torch.Generator().manual_seed(0))
    return {"noise": noise, "frozen": frozen, "step": torch.tensor(step)}


def _save_for_ever(uri: str, rank: int, world: int, rendezvous: str, report: int) -> None:
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    opener = checkpointer(uri, rank, world, keep=KeepConfig(latest=2, best=1, grace_seconds=0))
    restored = opener.open(state_of(0)).restored
    step = restored.step if restored else 0
    if rank == 0:
        os.write(report, b".")
    saver = opener.saver
    while True:
        step += 1
        state = state_of(step)
        saver.begin(step, state, {"step": step}, {"val_nll": abs(step % 7 - 3.0)})
        for tensor in state["noise"].values():
            tensor.zero_()  # training goes on: what was copied must not change with it
        while saver.under_way is not None:
            time.sleep(0.001)
            signals = torch.tensor(saver.signals())
            if world > 1:
                dist.all_reduce(signals)
            if saver.heard(*signals.tolist()) is not None and rank == 0:
                os.write(report, b".")


def main(uri: str, world: int) -> None:
    """Serves kills until the input ends."""
    for line in sys.stdin:
        saves, delay, first = line.split()
        ready, report = os.pipe()
        children = []
        with tempfile.TemporaryDirectory() as folder:
            for rank in range(world):
                child = os.fork()
                if child == 0:
                    os.close(ready)
                    _save_for_ever(uri, rank, world, str(Path(folder) / "rendezvous"), report)
                children.append(child)
            os.close(report)
            for _ in range(1 + int(saves)):
                if not os.read(ready, 1):
                    raise SystemExit("a child died by itself")
            time.sleep(float(delay))
            for child in [children.pop(int(first)), *children]:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                time.sleep(0.02)  # the others may go on alone for a moment
            os.close(ready)
        print("killed", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], int(sys.argv[2]))
