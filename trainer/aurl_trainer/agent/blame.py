"""What the end of a rank means: whose fault it was, and how its agent ends for it.

Pure, but for reading the files that the rank has left. Not here: evidence against a peer (beats.py), and
waiting for it (node.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from aurl_trainer.contract import (
    TRACEBACK_BYTES,
    Cause,
    ExitCode,
    RankFailure,
    RankSaved,
    RecordError,
    Termination,
)

_PEERS_FAULT = re.compile(
    r"connection (closed|reset) by peer|broken pipe|connection refused|no route to host|socket closed"
    r"|application timeout caused pair closure|gloo.*tim(ed )?out|DistBackendError|DistNetworkError"
    r"|DistStoreError|nccl(Remote|System|Internal)Error|NCCL.*(timeout|watchdog|remote process|abort)"
    r"|watchdog.*collective|(recvValue|sendBytes|recvBytes|recvVector) failed|failed to recv",
    re.IGNORECASE,
)
_MEMORY = re.compile(r"OutOfMemoryError|out of memory|^MemoryError|can't allocate memory", re.MULTILINE)


def peers_fault(text: str) -> bool:
    """Whether an error's text is of the kind that a vanished peer causes."""
    return _PEERS_FAULT.search(text) is not None


class Fault(StrEnum):
    """Whose fault the end of a rank is."""

    OWN = "own"
    PEER = "peer"
    """Perhaps a peer's: needs evidence."""
    WORLD = "world"
    """Nobody's: the world changes."""
    NOTICE = "notice"


@dataclass(frozen=True)
class RankEnd:
    """How a rank ended. `code` is minus the signal's number if one killed it; `at` is seconds since the
    epoch, from the rank's own record if it left one; `text` is its traceback or the tail of its stderr."""

    rank: int
    code: int
    at: float
    text: str = ""
    message: str = ""
    cause: Cause | None = None
    """What the rank's own record says."""
    step: int | None = None
    asked: int | None = None
    """The exit code that its error asks `aurl run` to end with."""


_CODES = {
    ExitCode.HANG: Cause.HANG,
    ExitCode.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
    ExitCode.STORE_LOST: Cause.STORE_LOST,
    ExitCode.FINAL: Cause.FINAL_ERROR,
}


def blame(end: RankEnd, *, oom_killed: bool = False, master_port: int | None = None) -> tuple[Fault, Cause]:
    """Whose fault a nonzero end is, and its cause if it is this node's own.

    `oom_killed`: the kernel has killed for memory in this cgroup since the ranks started. `master_port`: the
    port that the agents chose for the ranks; that it was taken meanwhile is nobody's fault.
    """
    if end.code == ExitCode.REJOIN:
        return Fault.WORLD, Cause.STOPPED
    if end.code == ExitCode.PREEMPTED:
        return Fault.NOTICE, Cause.PREEMPTED
    if end.code in _CODES:
        return Fault.OWN, _CODES[ExitCode(end.code)]
    text = f"{end.message}\n{end.text}"
    if master_port is not None and "EADDRINUSE" in text and str(master_port) in text:
        return Fault.WORLD, Cause.STOPPED
    if end.cause is not None:
        return Fault.OWN, end.cause
    if (end.code == -signal.SIGKILL and oom_killed) or _MEMORY.search(text):
        return Fault.OWN, Cause.OUT_OF_MEMORY
    if end.code in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE):
        return Fault.OWN, Cause.CRASH
    if peers_fault(text) or not text.strip():
        return Fault.PEER, Cause.CRASH
    return Fault.OWN, Cause.CRASH


def to_blame(ends: Iterable[tuple[RankEnd, Fault, Cause]]) -> tuple[RankEnd, Fault, Cause]:
    """The first of several ends that counts: an own fault before a suspected one, then the earlier.

    Of the suspected ones, those that died without a word come before those that say a peer is gone.
    """
    order = [Fault.OWN, Fault.PEER, Fault.NOTICE, Fault.WORLD]
    return min(ends, key=lambda e: (order.index(e[1]), peers_fault(e[0].text), e[0].at))


def rank_end(rank: int, code: int, error_file: str, stderr: str) -> RankEnd:
    """How a rank ended, with what it left in our record, in torch's error file, or else on stderr."""
    now = time.time()
    with contextlib.suppress(OSError, RecordError):
        own = RankFailure.from_json(Path(f"{error_file}.aurl").read_bytes())
        cause = Cause(own.cause)
        return RankEnd(rank, code, own.at, own.traceback, own.message, cause, own.step, own.exit_code)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        left = json.loads(Path(error_file).read_bytes())["message"]
        if isinstance(left, str):
            return RankEnd(rank, code, now, left, last_line(left))
        extra = left["extraInfo"]
        return RankEnd(rank, code, float(extra["timestamp"]), extra["py_callstack"], left["message"])
    text = ""
    with contextlib.suppress(OSError), Path(stderr).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 8 * TRACEBACK_BYTES))
        # Once a process group is there, torch prints tracebacks with the rank before each line.
        text = re.sub(r"^\[rank\d+\]: ?", "", file.read().decode(errors="replace"), flags=re.MULTILINE)
        start = text.rfind("Traceback (most recent call last)")
        text = text[start:] if start >= 0 else text[-TRACEBACK_BYTES:]
    return RankEnd(rank, code, now, text, last_line(text))


def last_line(text: str) -> str:
    """The last line of an error's text that says something, or an empty string."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "["))]
    return lines[-1].strip() if lines else ""


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def main_thread_stack(dump: str) -> str:
    """Of faulthandler's output the newest dump's main thread, its innermost calls kept if it is too long."""
    blocks = [b for b in re.split(r"\n(?=(?:Current t|T)hread 0x|Timeout \()", dump) if "hread 0x" in b]
    return blocks[-1].strip().encode()[: TRACEBACK_BYTES - 100].decode(errors="ignore") if blocks else ""


@dataclass(frozen=True)
class Ending:
    """How an agent ends."""

    cause: Cause
    code: ExitCode
    message: str
    rank: int | None = None
    step: int | None = None
    traceback: str | None = None
    rank_code: int | None = None
    """The failing rank's exit code, or what its error asked for: rules by exit code mean this one."""
    saved: RankSaved | None = None
    """What ranks that ended well, or left, have said."""

    def record(self) -> Termination:
        """The record for the termination log."""
        code = self.code if self.rank_code is None else self.rank_code
        return Termination(
            self.cause,
            self.message,
            code,
            time.time(),
            self.rank,
            self.step,
            self.traceback,
            self.saved.durable_step if self.saved else None,
            self.saved.durable_name if self.saved else None,
        )


ALL_WELL = "all ranks ended well"
BARRED = "another node has taken this one's place"

_EXITS = {
    Cause.SUCCEEDED: ExitCode.OK,
    Cause.PREEMPTED: ExitCode.PREEMPTED,
    Cause.HANG: ExitCode.HANG,
    Cause.OUT_OF_MEMORY: ExitCode.OUT_OF_MEMORY,
    Cause.STORE_LOST: ExitCode.STORE_LOST,
    Cause.FINAL_ERROR: ExitCode.FINAL,
}


def ending(cause: Cause, message: str, end: RankEnd | None = None) -> Ending:
    """The ending for `cause`, with what is known of the rank that caused it."""
    code = _EXITS.get(cause, ExitCode.CRASH)
    if end is None:
        return Ending(cause, code, message)
    rank_code = end.asked or (end.code if end.code > 0 else None)
    return Ending(cause, code, message, end.rank, end.step, end.text.strip() or None, rank_code)


def told(result: Ending, error_files: Iterable[str]) -> Ending:
    """`result` with what the node's ranks, which these files are of, said at their good end."""
    for file in error_files:
        with contextlib.suppress(OSError, RecordError):
            return replace(result, saved=RankSaved.from_json(Path(f"{file}.saved").read_bytes()))
    return result


def agent_failed(error: BaseException) -> Ending:
    """The ending for an error of the agent's own."""
    text = "".join(traceback.format_exception(error))
    return Ending(Cause.CRASH, ExitCode.CRASH, f"the agent failed: {error!r}", traceback=text)
