"""A pool of child processes in which a crash costs one file, and that file is named.

Foreign MIDI is parsed by C++ that may abort, or exhaust memory or time, on a malformed file. The standard
library's pools break as a whole then and cannot say which task it was; here each child has one task at a
time. Children are given bytes and answer bytes and JSON: nothing is unpickled. What a child does with a
task is in reading.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any

from aurl_trainer.errors import MissingError

ATTEMPTS = 2
"""A file is given up when so many children died over it: the first death may be others' doing."""


@dataclass(frozen=True)
class Task:
    """One piece of work: `index` names it in the answer, `head` is JSON, `body` are a file's bytes."""

    index: int
    head: dict[str, Any]
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What came of a task: `head` and `frames` from the child, or `failure`, one line that says why not."""

    index: int
    head: dict[str, Any] = field(default_factory=dict)
    frames: tuple[bytes, ...] = ()
    failure: str | None = None


class _Child:
    """One child process and the task it has."""

    def __init__(self, command: list[str], setup: dict[str, Any]) -> None:
        self.connection, theirs = Pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        # One thread each: there are as many children as the user wants cores busy.
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [*command, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env={**os.environ, **quiet},
        )
        theirs.close()
        self.task: Task | None = None
        self.ready = False
        self._send(json.dumps(setup).encode())

    def give(self, task: Task) -> None:
        self.task = task
        self._send(json.dumps(task.head).encode())
        self._send(task.body)

    def _send(self, data: bytes) -> None:
        # A child that died meanwhile shows when its answer is awaited.
        with contextlib.suppress(OSError):
            self.connection.send_bytes(data)

    def take(self) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        """The answer that has come. Raises EOFError or OSError if the child has died, ValueError if it
        answers nonsense (its memory is not to be trusted then)."""
        head = json.loads(self.connection.recv_bytes())
        return head, tuple(self.connection.recv_bytes() for _ in range(head["frames"]))

    def end(self) -> int:
        """Stop it; its exit status, negative for a signal."""
        self.connection.close()
        try:
            status = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        return status

    def last_words(self) -> str:
        """The last line it wrote to its standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Stop it at once and let go of everything."""
        self.process.kill()
        self.end()
        self._errors.close()


def run(
    tasks: Iterable[Task],
    setup: dict[str, Any],
    processes: int,
    module: str = "aurl_trainer.data.reading",
) -> Iterator[Answer]:
    """Answers to all tasks, as they come, from at most `processes` children that run `module`.

    `setup` goes to each child first. A child that dies is replaced; its task is tried again and then
    answered with a failure. Raises MissingError if children cannot start at all.
    """
    command = [sys.executable, "-m", module]
    waiting = iter(tasks)
    again: list[Task] = []
    deaths: dict[int, int] = {}
    children: list[_Child] = []

    def following() -> Task | None:
        return again.pop() if again else next(waiting, None)

    try:
        for _ in range(processes):
            if (task := following()) is None:
                break
            children.append(_Child(command, setup))
            children[-1].give(task)
        while children:
            by_connection: dict[Any, _Child] = {c.connection: c for c in children}
            for connection in wait(list(by_connection)):
                child = by_connection[connection]
                task = child.task
                assert task is not None
                try:
                    head, frames = child.take()
                except (EOFError, OSError, ValueError, TypeError, KeyError):
                    children.remove(child)
                    status = child.end()
                    said = child.last_words()
                    child.close()
                    if not child.ready:
                        raise MissingError(f"the process that reads music cannot start: {said}") from None
                    deaths[task.index] = deaths.get(task.index, 0) + 1
                    if deaths[task.index] < ATTEMPTS:
                        again.append(task)
                    else:
                        yield Answer(task.index, failure=_obituary(status))
                    if (task := following()) is not None:
                        children.append(_Child(command, setup))
                        children[-1].give(task)
                    continue
                if not child.ready:
                    child.ready = True
                    continue
                yield Answer(task.index, head, frames, head.get("failure"))
                if (task := following()) is None:
                    children.remove(child)
                    child.close()
                else:
                    child.give(task)
    finally:
        for child in children:
            child.close()


def _obituary(status: int) -> str:
    if status == -signal.SIGPROF:
        return "takes too long to read"
    if status == -signal.SIGKILL:
        return "exhausts the memory of the process that reads it"
    if status < 0:
        return f"crashes the process that reads it ({signal.Signals(-status).name})"
    return f"crashes the process that reads it (exit status {status})"
