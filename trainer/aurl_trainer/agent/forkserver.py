"""A process that has imported what ranks need, and forks one, in milliseconds, whenever its agent asks.

    python -u -m aurl_trainer.agent.forkserver CHANNEL AGENT MODULE...

CHANNEL is the number of a socket's file descriptor, AGENT the agent's pid. It sends a byte when the modules
are imported. Each byte that comes with four descriptors (an Order as JSON, where the rank's output and errors
go, and a pipe for its pid) makes a rank, which runs its module as `python -u -m` would. It is forked twice,
so that it is no child of this process but of the agent, which adopts orphans; it dies with the agent, too.
The memory of what is imported is shared until somebody writes to it.

CUDA must not be initialised before a fork: PyTorch is told to ask NVML, which initialises nothing, whether a
GPU is there. Linux only. Not here: when a rank is wanted, and what happens if none comes (warm.py).
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

from aurl_trainer.agent.processes import bind_to

READY = b"+"

_ARG_START = 48 - 3
"""Index of `arg_start` among the fields of /proc/PID/stat behind the name, of which the first is number 3."""


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
        """What `to_json` wrote."""
        return cls(**json.loads(text))


def serve(channel: socket.socket, agent: int) -> Order | None:
    """Fork whenever asked. Returns an order in the rank that is to follow it; None when the agent is gone."""
    while True:
        _, fds, _, _ = socket.recv_fds(channel, 1, 4)
        if len(fds) < 4:
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


def _born(between: int, agent: int, order: int, output: int, errors: int, reply: int) -> Order:
    """In the rank: become the agent's child, read the order, and tell one's pid."""
    os.setsid()
    while os.getppid() == between:
        time.sleep(0.0005)
    bind_to(agent)
    with os.fdopen(order, "rb") as file:
        wanted = Order.from_json(file.read())
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.environ.clear()
    os.environ.update(wanted.env)
    _show_as(wanted.argv)
    os.write(reply, str(os.getpid()).encode())
    for fd in (output, errors, reply):
        os.close(fd)
    return wanted


def _show_as(argv: Sequence[str]) -> None:
    """Write over the memory that /proc/PID/cmdline shows: as much as this process's own arguments take."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, size = int(fields[_ARG_START]), int(fields[_ARG_START + 1]) - int(fields[_ARG_START])
    text = b"\0".join(os.fsencode(part) for part in argv)[: size - 1]
    if start > 0 and size > 0:
        ctypes.memmove(start, text.ljust(size, b"\0"), size)


def main(arguments: Sequence[str]) -> None:
    """Import, then serve; in a rank, be that rank."""
    channel = socket.socket(fileno=int(arguments[0]))
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    for module in arguments[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # the collector would write to every object, and so copy all shared memory
    channel.sendall(READY)
    order = serve(channel, int(arguments[1]))
    if order is not None:
        sys.argv = [order.module, *order.arguments]
        runpy.run_module(order.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
