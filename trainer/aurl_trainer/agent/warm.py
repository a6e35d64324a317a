"""Ranks from a process that has imported everything already: the agent's side of the fork server.

A rank needs several seconds of processor time to import PyTorch and its checkpoints. They are spent once a
node, before it joins the others, and not at every world. Whatever fails here only costs that time again: the
rank is then started as any other. Not here: the fork (forkserver.py), what becomes of ranks (ranks.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.distributed.elastic.multiprocessing import api
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

from aurl_trainer.agent.forkserver import Order
from aurl_trainer.agent.processes import bound, program_of
from aurl_trainer.agent.rendezvous import Noticed
from aurl_trainer.contract import ExitCode

_FORK_SECONDS = 10.0
"""A fork takes milliseconds; after this long the server counts as stuck."""

_END_SECONDS = 5.0
"""How long a server that has ended, or was killed, may take to be gone."""

_HANDLERS = "get_subprocess_handler"
"""What torch calls for each rank to start."""


class Forked:
    """A rank that was forked: as much of subprocess.Popen as torch's agent and ours use. It is our child."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._collecting = threading.Lock()

    def poll(self) -> int | None:
        """The exit code, a signal's number negative; None while it runs."""
        with self._collecting:
            if self.returncode is None:
                try:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:
                    self.returncode = int(ExitCode.CRASH)  # nobody can tell, so it is no success
                else:
                    self.returncode = os.waitstatus_to_exitcode(status) if pid else None
            return self.returncode

    def kill(self) -> None:
        """SIGKILL, and wait a while for the end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(_END_SECONDS)

    def wait(self, timeout: float | None = None) -> int:
        """See subprocess.Popen. Raises subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired(f"rank {self.pid}", timeout or 0.0)
            time.sleep(0.01)
        return code


class Warm:
    """The fork server of this agent, which imports `modules` beside whatever else goes on."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.served = False
        """Whether it has ever been ready: if so, another one would be, too."""
        self._ready = False
        self._failed: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._channel, theirs = socket.socketpair()
            with theirs:
                command = [sys.executable, "-u", "-m", "aurl_trainer.agent.forkserver"]
                command += [str(theirs.fileno()), str(os.getpid()), *modules]
                self._process = subprocess.Popen(
                    bound(command),
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    pass_fds=[theirs.fileno()],
                )
        except OSError as error:
            self._failed = f"the fork server could not be started: {error}"

    @property
    def pid(self) -> int | None:
        """Of the server; None once it has ended."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def wait(self, limit: float, noticed: Callable[[], bool]) -> str | None:
        """Until all is imported. Returns what went wrong instead, if it did. Raises Noticed."""
        started = time.monotonic()
        while self._process is not None and self.pid is not None:
            if self._ready:
                return None
            if noticed():
                raise Noticed
            if time.monotonic() - started > limit:
                self._stop(f"the fork server did not import in {limit:.0f} s")
            elif select.select([self._channel], [], [], 0.1)[0]:
                self.served = self._ready = bool(self._channel.recv(1))
                if not self._ready:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._process.wait(_END_SECONDS)
        self._ready = False
        if self._failed is None and self._process is not None:
            self._failed = f"the fork server has ended with {self._process.returncode}"
        return self._failed

    @contextlib.contextmanager
    def starts_ranks(self) -> Iterator[None]:
        """torch's agent gets its ranks from here meanwhile, as far as they can be had so."""
        warm = self

        class Handler(SubprocessHandler):
            def _popen(self, args: tuple[str, ...], env: dict[str, str]) -> Any:
                made = warm._fork(program_of(args), env, self._stdout, self._stderr)
                return super()._popen(args, env) if made is None else made

        before = getattr(api, _HANDLERS)
        setattr(api, _HANDLERS, Handler)
        try:
            yield
        finally:
            setattr(api, _HANDLERS, before)

    def _fork(
        self, program: Sequence[str] | None, env: dict[str, str], output: Any, errors: Any
    ) -> Forked | None:
        """The rank that runs `program`; None: it is none of ours, or the server does not answer."""
        if program is None or tuple(program[:3]) != (sys.executable, "-u", "-m") or not self._ready:
            return None
        order = Order(program[3], program[4:], program, env)
        made: Forked | None = None
        try:
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    out = 1 if output is None else output.fileno()
                    err = 2 if errors is None else errors.fileno()
                    socket.send_fds(self._channel, [b"?"], [theirs.fileno(), out, err])
                ours.settimeout(_FORK_SECONDS)
                made = Forked(int(ours.recv(32)))
                ours.sendall(order.to_json())
                return made
        except (OSError, ValueError):  # nothing came, or its end
            if made is not None:
                made.kill()
            self._stop("the fork server did not answer")
            return None

    def _stop(self, why: str) -> None:
        self._failed, self._ready = why, False
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)  # in uninterruptible sleep it outlasts even SIGKILL
