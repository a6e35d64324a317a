"""What a node fetches and prepares for its ranks before it asks for a place, while the others train on.

Best effort: what fails here the ranks do again, and report it as theirs. Not here: when there is somebody to
wait for (rendezvous.py), what is prepared (`aurl prepare`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from aurl_trainer.agent.processes import bound
from aurl_trainer.agent.rendezvous import Noticed
from aurl_trainer.contract import Env


def prepare(command: Sequence[str], limit: float, noticed: Callable[[], bool]) -> str:
    """Run `command` and say, for the log, how it ended. Raises Noticed, and stops it, when `noticed()`.

    It may take as long as it gets on: `limit` seconds without that, by the time of a file, end it.
    """
    with tempfile.NamedTemporaryFile(prefix="aurl-alive-") as mark:
        return _watched(command, Path(mark.name), limit, noticed)


def _watched(command: Sequence[str], mark: Path, limit: float, noticed: Callable[[], bool]) -> str:
    started = moved = time.monotonic()
    seen = mark.stat().st_mtime_ns
    # A process group of its own: all that it has started is stopped with it.
    process = subprocess.Popen(
        bound(command),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, Env.ALIVE: str(mark)},
    )
    try:
        while process.poll() is None:
            if noticed():
                raise Noticed
            if (now := mark.stat().st_mtime_ns) != seen:
                seen, moved = now, time.monotonic()
            if time.monotonic() - moved > limit:
                return f"`{shlex.join(command)}` made no progress for {limit:.0f} s: the ranks prepare"
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != 0:
        return f"`{shlex.join(command)}` ended with {process.returncode}: the ranks try again"
    return f"prepared in {time.monotonic() - started:.1f} s"
