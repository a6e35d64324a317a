"""The run's processes: started so that none outlives the run, watched, told to leave, killed.

Three layers see to it: the kernel kills an agent with its supervisor (and the agent's ranks with the agent);
orphans are adopted and swept by a mark in their environment; a guard sweeps when the supervisor itself is
killed. Not here: what is started (`launch/`) or why (`core/`). One thread only: see `kernel.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil

from aurl_operator.backends.local.process.kernel import adopt_orphans, die_with_parent
from aurl_operator.backends.local.process.sweep import SUPERVISOR, kill_marked, marked
from aurl_operator.errors import MissingError
from aurl_operator.launch.command import Command
from aurl_trainer.contract import Env, rank_name


@dataclass(frozen=True)
class Ended:
    """A process that is gone. `code` is its exit code, or minus the number of the signal that ended it."""

    uid: str
    name: str
    pid: int
    code: int
    at: float


@dataclass(frozen=True)
class _Running:
    name: str
    process: subprocess.Popen[bytes]


class Processes:
    """Processes by the uid they were started with. Create one per run, in the main thread; `close` it."""

    def __init__(self, lock: int | None = None) -> None:
        """`lock` is the file descriptor of the run directory's lock, which the guard holds too."""
        self.mark = uuid.uuid4().hex
        self._lock = lock
        self._running: dict[str, _Running] = {}
        adopt_orphans()
        self._guard = self._start_guard()

    def start(self, name: str, uid: str, command: Command, log: Path) -> int:
        """Starts a process in a session of its own, its output appended to `log`. Returns its pid.

        Raises MissingError if the program is not there.
        """
        environment = {**os.environ, **command.env, SUPERVISOR: self.mark, Env.NODE_UID: uid}
        with log.open("ab", buffering=0) as output:
            try:
                process = subprocess.Popen(
                    command.argv,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            except OSError as error:
                raise MissingError(f"{name}: cannot start {command.argv[0]}: {error.strerror}") from None
        self._running[uid] = _Running(name, process)
        return process.pid

    def alive(self) -> dict[str, int]:
        """Pid by uid of what has not been seen to end."""
        return {uid: running.process.pid for uid, running in self._running.items()}

    def ended(self) -> list[Ended]:
        """What has ended since the last call, each once, with whatever it left behind killed."""
        if self._guard.poll() is not None:
            self._guard = self._start_guard()
        ends = []
        for uid, running in list(self._running.items()):
            code = running.process.poll()
            if code is not None:
                del self._running[uid]
                kill_marked({SUPERVISOR: self.mark, Env.NODE_UID: uid})
                ends.append(Ended(uid, running.name, running.process.pid, code, time.time()))
        self._reap()
        return ends

    def notify(self, uid: str) -> None:
        """SIGTERM to the process itself: a notice, not an order. Nothing if it is gone."""
        running = self._running.get(uid)
        if running is not None and running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)

    def kill(self, uid: str) -> int:
        """SIGKILL to the process and to all it started, as a machine that vanishes. Returns how many."""
        running = self._running.get(uid)
        pid = running.process.pid if running else None
        return kill_marked({SUPERVISOR: self.mark, Env.NODE_UID: uid}, pid=pid)

    def freeze(self, uid: str) -> None:
        """SIGSTOP to the process and to all it started, as a machine that hangs."""
        for process in self.members(uid):
            try:
                process.suspend()
            except psutil.Error:
                continue

    def signal_rank(self, uid: str, local_rank: int, number: int) -> bool:
        """A signal to the agent's child that is this local rank. Returns whether there is one."""
        agent = self._running.get(uid)
        for process in self.members(uid):
            try:
                mine = agent is not None and process.ppid() == agent.process.pid
                named = process.name() == rank_name(local_rank)  # a forked one shows the server's environment
                if mine and (named or process.environ().get("LOCAL_RANK") == str(local_rank)):
                    process.send_signal(number)
                    return True
            except (psutil.Error, OSError):
                continue
        return False

    def members(self, uid: str) -> list[psutil.Process]:
        """All living processes of one uid, its own process included."""
        return marked({SUPERVISOR: self.mark, Env.NODE_UID: uid})

    def close(self) -> None:
        """Kills whatever is left and dismisses the guard."""
        kill_marked({SUPERVISOR: self.mark})
        for running in self._running.values():
            running.process.wait()
        self._reap()
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def _start_guard(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "aurl_operator.backends.local.process.guard", self.mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=() if self._lock is None else (self._lock,),
        )

    def _reap(self) -> None:
        """Collects adopted orphans that have ended, so that no zombies gather."""
        known = {r.process.pid for r in self._running.values()} | {self._guard.pid}
        for child in psutil.Process().children():
            try:
                if child.pid not in known and child.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(child.pid, os.WNOHANG)
            except (psutil.Error, ChildProcessError):
                continue


def kill_leftovers(run_dir: Path) -> int:
    """Kills processes that an earlier `aurl run` left in this run directory. Returns how many.

    Only for whoever holds the directory's lock. There are some only if the supervisor and its guard were
    both killed at once.
    """
    return kill_marked({Env.RUN_DIR: str(run_dir), SUPERVISOR: None})
