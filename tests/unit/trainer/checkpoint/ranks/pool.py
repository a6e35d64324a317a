"""Two real processes with gloo between them, started once and used by many tests."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

DEADLINE = 240.0
"""Seconds until a rank that does not answer counts as hung."""


class RankPool:
    """Runs a function on every rank: `function(rank, world, *arguments)`."""

    def __init__(self, world: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        self._processes = []
        rendezvous = str(Path(self._folder.name) / "rendezvous")
        for rank in range(world):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, world, rendezvous, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The results by rank; what a rank raised is its result."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        results = []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(DEADLINE), f"rank {rank} hangs"
            results.append(pipe.recv())
        return results

    def close(self) -> None:
        """Ends the ranks."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(30)
            if process.is_alive():
                process.kill()
        self._folder.cleanup()


def _serve(rank: int, world: int, rendezvous: str, pipe: Any) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=DEADLINE),
    )
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            pipe.send(function(rank, world, *arguments))
        except Exception as error:
            # Its text and kind travel; an exception itself may not survive the way.
            pipe.send((type(error).__name__, str(error), traceback.format_exc()))
