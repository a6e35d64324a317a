"""A process that saves without end until it is killed: `python -m ...killed URL`, one kill a line of input.

Each line is a delay in seconds. A child is forked, opens the run, reports, and saves until the delay has
passed and SIGKILL takes it. Forking spares the import of torch for each kill.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import torch

from aurl_trainer.config.checkpoint import KeepConfig
from tests.unit.trainer.checkpoint.small import checkpointer


def state_of(step: int) -> dict[str, Any]:
    """What is saved at a step: 200 kB that the step decides, and a number that names it."""
    generator = torch.Generator().manual_seed(step)
    noise = {str(i): torch.randn(5000, generator=generator) for i in range(10)}
    return {"noise": noise, "step": torch.tensor(step)}


def main(uri: str) -> None:
    """Serves kills until the input ends."""
    for line in sys.stdin:
        ready, report = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ready)
            saver = checkpointer(uri, keep=KeepConfig(latest=2, best=1))
            restored = saver.open(state_of(0)).restored
            step = restored.step if restored else 0
            os.write(report, b".")
            while True:
                step += 1
                saver.save(step, state_of(step), {"step": step}, {"val_nll": abs(step % 7 - 3.0)})
        os.close(report)
        if not os.read(ready, 1):
            raise SystemExit("the child died by itself")
        os.close(ready)
        time.sleep(float(line))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print("killed", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
