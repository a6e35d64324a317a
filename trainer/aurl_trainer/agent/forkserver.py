"""A process that has imported what ranks need, and forks one, in milliseconds, whenever its agent asks.

    python -u -m aurl_trainer.agent.forkserver CHANNEL AGENT MODULE...

CHANNEL is the number of a socket's file descriptor, AGENT the agent's pid. It sends a byte when the modules
are imported. Each byte that comes with three descriptors (a line to the agent, where the rank's output goes,
and where its errors go) makes a rank. That tells its pid on its line, reads its Order there, to the end, and
runs its module as `python -u -m` would; without a whole order it ends. It is forked twice, so that it is no
child of this process but of the agent, which adopts orphans; it dies with the agent, too. The memory of what
is imported is shared until somebody writes to it.

CUDA must not be initialised before a fork, nor may threads run: PyTorch is told to ask NVML, which
initialises nothing, whether a GPU is there, and a first fork shows whether all is well. Linux only. Not here:
when a rank is wanted, and what happens if none comes (warm.py).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from aurl_trainer.agent.processes import bind_to
from aurl_trainer.contract import ExitCode, rank_name

READY = b"+"

_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
_ARG_START = 48 - 3
"""Index of `arg_start` among the fields of /proc/PID/stat behind the name, of which the first is number 3."""

_PR_SET_NAME = 15


@dataclass(frozen=True)
class Order:
    """A rank to make: `module` with its arguments, under `env` alone; `argv` is what `ps` shows."""

    module: str
    arguments: Sequence[str]
    argv: Sequence[str]
    env: Mapping[str, str]

    def to_json(self) -> bytes:
        """For `from_json`."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Order:
        """What `to_json` wrote. Raises ValueError if it is not whole."""
        return cls(**json.loads(text))


def serve(channel: socket.socket, agent: int) -> Order | None:
    """Fork whenever asked. Returns an order in the rank that is to follow it; None when the agent is gone."""
    while True:
        _, fds, _, _ = socket.recv_fds(channel, 1, 3)
        if len(fds) < 3:
            return None
        between = os.fork()
        if between == 0:
            between = os.getpid()
            if os.fork() != 0:
                os._exit(0)
            channel.close()
            return _born(between, agent, *fds)
        os.waitpid(between, 0)
        for fd in fds:
            os.close(fd)


def _born(between: int, agent: int, line: int, output: int, errors: int) -> Order:
    """In the rank: become the agent's child, tell one's pid, and do as one is told, if one is."""
    os.setsid()
    while os.getppid() == between:
        time.sleep(0.0005)
    bind_to(agent)
    try:
        with socket.socket(fileno=line) as told:
            told.sendall(str(os.getpid()).encode())
            order = Order.from_json(b"".join(iter(lambda: told.recv(65536), b"")))
    except (OSError, ValueError):
        os._exit(ExitCode.REJOIN)  # the agent has given up waiting
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.close(output)
    os.close(errors)
    return order


def follow(order: Order, brought: Mapping[str, str]) -> None:
    """Be the rank that is ordered. `brought`: what imports have added to the environment."""
    os.environ.clear()
    os.environ.update({**brought, **order.env})
    _show_as(order.argv, order.env.get("LOCAL_RANK", ""))
    sys.argv = [order.module, *order.arguments]
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


def _show_as(argv: Sequence[str], local_rank: str) -> None:
    """Write over the memory that /proc/PID/cmdline shows: as much as this process's own arguments take.

    What /proc/PID/environ shows stays the server's, so the name of the process tells which rank it is.
    """
    ctypes.CDLL(None).prctl(_PR_SET_NAME, rank_name(local_rank).encode())
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, size = int(fields[_ARG_START]), int(fields[_ARG_START + 1]) - int(fields[_ARG_START])
    text = b"\0".join(os.fsencode(part) for part in argv)[: size - 1]
    if start > 0 and size > 0:
        ctypes.memmove(start, text.ljust(size, b"\0"), size)


def _import(modules: Sequence[str]) -> dict[str, str]:
    """Returns what they have added to the environment. Ends the process if they forbid to fork it."""
    before = dict(os.environ)
    os.environ[_NVML] = "1"
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # the collector would write to every object, and so copy all shared memory
    probe = os.fork()
    if probe == 0:
        torch = sys.modules.get("torch")
        os._exit(0 if torch is None else int(cast(bool, torch.cuda._is_in_bad_fork())))
    if os.waitpid(probe, 0)[1] != 0:
        sys.exit("fork server: an import has initialised CUDA, so no rank can be forked")
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        sys.exit(f"fork server: imports have left {threads - 1} threads running, so no rank can be forked")
    before[_NVML] = "1"
    return {name: value for name, value in os.environ.items() if before.get(name) != value}


def main(arguments: Sequence[str]) -> None:
    """Import, then serve; in a rank, be that rank."""
    channel = socket.socket(fileno=int(arguments[0]))
    brought = _import(arguments[2:])
    channel.sendall(READY)
    order = serve(channel, int(arguments[1]))
    if order is not None:
        follow(order, brought)


if __name__ == "__main__":
    main(sys.argv[1:])
