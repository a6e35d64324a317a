"""No process outlives its agent, and what the kernel tells of those that have died.

Ranks die with the agent (the kernel's parent-death signal); what ranks have started is found by a mark in its
environment and killed when a world ends, or, if the agent itself is killed, by a small guard process. Linux
only. Not here: which processes are ranks, and when they have to go (ranks.py, node.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from aurl_trainer.contract import ExitCode

MARK = "AURL_AGENT_MARK"
"""Environment variable that all processes under one agent inherit, with that agent's own id."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

START = (
    "import ctypes, os, sys\n"
    f"ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGKILL)})\n"
    # The agent may have died before the line above.
    f"os.getppid() == int(sys.argv[1]) or os._exit({int(ExitCode.REJOIN)})\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)
"""Makes a rank die with its agent, then becomes the rank. The signal survives exec, not fork."""


def bound(program: Sequence[str]) -> list[str]:
    """The command that starts `program` so that it dies with this process."""
    return [sys.executable, "-I", "-S", "-c", START, str(os.getpid()), *program]


def program_of(command: Sequence[str]) -> tuple[str, ...] | None:
    """The program of a command that `bound` has made; None if it is another one."""
    made = len(command) > 6 and command[0] == sys.executable and command[4] == START
    return tuple(command[6:]) if made else None


def bind_to(parent: int) -> None:
    """Die with `parent`, whose child this process is. Ends it if `parent` is gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(ExitCode.REJOIN)


def kill_marked(mark: str, spare: Collection[int]) -> None:
    """SIGKILL every process whose environment holds `mark` but those in `spare`, until none is left.

    Self-contained: the guard runs this source in a bare interpreter, which costs 8 MB instead of torch.
    """
    import os
    import signal
    import time

    for _ in range(200):
        found = False
        for entry in os.listdir("/proc"):  # noqa: PTH208 - the guard starts in 20 ms without pathlib
            if not entry.isdigit() or int(entry) in (*spare, os.getpid()):
                continue
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:  # noqa: PTH123
                    if mark.encode() not in file.read().split(b"\0"):
                        continue
                with open(f"/proc/{entry}/stat") as file:  # noqa: PTH123
                    if file.read().rpartition(")")[2].split()[0] == "Z":
                        continue
                os.kill(int(entry), signal.SIGKILL)
                found = True
            except OSError:
                continue
        if not found:
            return
        time.sleep(0.02)


_GUARD = f"""from __future__ import annotations
{inspect.getsource(kill_marked)}
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
while os.read(0, 64):
    pass
kill_marked(sys.argv[1], [int(sys.argv[2])])
"""


def start_guard(mark: str) -> subprocess.Popen[bytes]:
    """A process that kills everything with `mark` when this one is gone: its stdin ends then."""
    command = [sys.executable, "-I", "-S", "-c", _GUARD, f"{MARK}={mark}", str(os.getpid())]
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)


def adopt_orphans() -> None:
    """Grandchildren whose parent dies become this process's children, not init's."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reap_orphans(known: set[int]) -> None:
    """Collect ended children but those in `known`, whose exit codes somebody waits for."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in known:
                return
            os.waitpid(ended.si_pid, 0)


def oom_kills(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """How often the kernel has killed for memory in this cgroup (v1 or v2); 0 if nobody can tell."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return 0
    files = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # In a container without a cgroup namespace the path is the host's, and the mount is already ours.
        for folder in (path.lstrip("/"), ""):
            if controllers == "":
                files += [root / folder / "memory.events", root / "unified" / folder / "memory.events"]
            elif "memory" in controllers.split(","):
                files.append(root / "memory" / folder / "memory.oom_control")
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            counts = dict(line.split() for line in file.read_text().splitlines())
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
    return 0
