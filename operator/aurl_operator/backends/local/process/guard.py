"""A process that outlives `aurl run` by a moment: when its supervisor is gone, it kills what is left.

The kernel's parent-death signal ends agents and ranks already; what those have started themselves (readers
of data, a shell of the user's script) has nobody else. It also holds the run directory's lock, inherited,
so that the directory is free only when all of its processes are gone. Started by `processes.py` as
`python -m aurl_operator.backends.local.process.guard MARK`, with a pipe on stdin whose other end only the
supervisor has.
"""

from __future__ import annotations

import os
import signal
import sys

from aurl_operator.backends.local.process.sweep import SUPERVISOR, kill_marked


def main(mark: str) -> None:
    """Waits for the supervisor's end, then kills all of its processes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 64):
        pass
    kill_marked({SUPERVISOR: mark}, seconds=60.0)


if __name__ == "__main__":
    main(sys.argv[1])
