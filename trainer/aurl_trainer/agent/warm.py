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
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.distributed.elastic.multiprocessing import api
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

from aurl_trainer.agent.forkserver import Order
from aurl_trainer.agent.processes import bound, program_of
from aurl_trainer.agent.rendezvous import Noticed

_FORK_SECONDS = 30.0
"""A fork takes milliseconds; after this long the server counts as stuck."""

_HANDLERS = "get_subprocess_handler"
"""What torch calls for each rank to start."""


class Forked:
    """A rank that was forked: as much of subprocess.Popen as torch's agent and ours use. It is our child."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, a signal's number negative; None while it runs."""
        return self._collect(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """See subprocess.Popen. Raises subprocess.TimeoutExpired."""
        if timeout is None:
            code = self._collect(0)
        else:
            end = time.monotonic() + timeout
            while (code := self.poll()) is None:
                if time.monotonic() >= end:
                    raise subprocess.TimeoutExpired(f"rank {self.pid}", timeout)
                time.sleep(0.01)
        assert code is not None
        return code

    def _collect(self, options: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:
                # As subprocess does: somebody else has collected it, so nobody can tell.
                self.returncode = 0
                return self.returncode
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class Warm:
    """The fork server of this agent, which imports `modules` beside whatever else goes on."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._channel, theirs = socket.socketpair()
        command = [sys.executable, "-u", "-m", "aurl_trainer.agent.forkserver"]
        command += [str(theirs.fileno()), str(os.getpid()), *modules]
        self._process = subprocess.Popen(
            bound(command), stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self._ready = False

    @property
    def pid(self) -> int | None:
        """Of the server; None once it has ended."""
        return self._process.pid if self._process.poll() is None else None

    def wait(self, limit: float, noticed: Callable[[], bool]) -> str | None:
        """Until all is imported. Returns what went wrong instead, if it did. Raises Noticed."""
        started = time.monotonic()
        while not self._ready:
            if noticed():
                raise Noticed
            if self._process.poll() is not None:
                return f"the fork server has ended with {self._process.returncode}"
            if time.monotonic() - started > limit:
                self._stop()
                return f"the fork server did not import in {limit:.0f} s"
            if select.select([self._channel], [], [], 0.1)[0]:
                self._ready = bool(self._channel.recv(1))
                if not self._ready:
                    self._stop()
        return None

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
        paper = os.memfd_create("order")
        ours, theirs = os.pipe()
        try:
            os.write(paper, order.to_json())
            os.lseek(paper, 0, os.SEEK_SET)
            out = 1 if output is None else output.fileno()
            err = 2 if errors is None else errors.fileno()
            socket.send_fds(self._channel, [b"?"], [paper, out, err, theirs])
            os.close(theirs)
            theirs = -1
            answered = select.select([ours], [], [], _FORK_SECONDS)[0]
            pid = os.read(ours, 32) if answered else b""
        except OSError:
            pid = b""
        finally:
            for fd in (paper, ours, theirs):
                if fd >= 0:
                    os.close(fd)
        if not pid:
            self._stop()
            return None
        return Forked(int(pid))

    def _stop(self) -> None:
        self._ready = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
