"""Finding and killing processes by the marks in their environment, whatever became of their parents.

Every process of a run inherits the marks, however many sessions and process groups lie between. Here: the
search and the kill. Not here: when it is done (`processes.py`, `guard.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import psutil

SUPERVISOR = "AURL_SUPERVISOR"
"""Environment variable that marks every process started by one `aurl run`, with an id of that very call."""


def marked(marks: Mapping[str, str | None]) -> list[psutil.Process]:
    """Living processes of this user whose environment has all of `marks`, this process left out.

    A mark of value None is there with any value.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                environment = process.environ()
                if all(n in environment and v in (None, environment[n]) for n, v in marks.items()):
                    found.append(process)
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or another user's
    return found


def kill_marked(marks: Mapping[str, str | None], seconds: float = 10.0, pid: int | None = None) -> int:
    """SIGKILL to all marked processes, and to `pid` with its descendants, until none is left.

    Repeated because a process may fork while it is being looked for. Returns how many were killed; gives up
    after `seconds` (a process in uninterruptible sleep does not die before its device answers).
    """
    killed: set[tuple[int, float]] = set()
    deadline = time.monotonic() + seconds
    while victims := {*marked(marks), *_family(pid)}:
        for process in victims:
            try:
                process.kill()
                killed.add((process.pid, process.create_time()))
            except (psutil.Error, OSError):
                continue
        if time.monotonic() > deadline:
            break
        # Not psutil's wait: it would take a child's exit code away from whoever started it.
        time.sleep(0.02)
    return len(killed)


def _family(pid: int | None) -> list[psutil.Process]:
    """The process and its descendants that still live."""
    if pid is None:
        return []
    try:
        parent = psutil.Process(pid)
        members = [parent, *parent.children(recursive=True)]
        return [p for p in members if p.status() != psutil.STATUS_ZOMBIE]
    except psutil.Error:
        return []
