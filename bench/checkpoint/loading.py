"""One load in a process of its own.

    python -m bench.checkpoint.loading aurl|torch.load URL DEVICE PARAMETERS INTO

INTO: `state`, an optimizer that has its state, or `fresh`, one that has never stepped. Prints the bytes by
which memory grew at its peak, and the seconds it took.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import fsspec
import torch

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.checkpoint.parts import ModelPart, OptimizerPart
from aurl_trainer.config.checkpoint import CheckpointConfig
from bench.checkpoint.state import blank_of, wait


def memory(field: str) -> int:
    """Bytes of memory that this process has ("VmRSS"), or has had at most ("VmHWM")."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main(how: str, uri: str, device: torch.device, parameters: int, into: str) -> None:
    """Loads once."""
    model, optimizer = blank_of(parameters, device)
    if into == "state":
        for p in model.parameters():
            moments = {k: torch.full_like(p, 0.5) for k in ("exp_avg", "exp_avg_sq")}
            optimizer.state[p] = {"step": torch.tensor(1.0), **moments}
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    began = time.perf_counter()
    if how == "aurl":
        opener = Checkpointer(
            f"{uri}/aurl", run="bench", fingerprint={}, settings=CheckpointConfig(), rank=0, world=1
        )
        opener.open({"model": ModelPart(model), "optimizer": OptimizerPart(model, optimizer)})
    else:
        with fsspec.open(f"{uri}/torch-1.pt", "rb") as file:
            state = torch.load(file, weights_only=True, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    wait(device)
    seconds = time.perf_counter() - began
    print(memory("VmHWM") - before, seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], torch.device(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
