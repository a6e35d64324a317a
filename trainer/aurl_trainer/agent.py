"""What a node runs: a thin agent over torch.distributed.elastic that knows who is to blame.

    python -m aurl_trainer.agent run --nnodes 1:3 --nproc-per-node 1 ... -m aurl_trainer train
    python -m aurl_trainer.agent store --host 127.0.0.1 --port 29400

`run` takes torchrun's arguments. Other than torchrun it tells its own rank's failure (it ends, and the cause
stands in the termination record) from one that a peer caused (it joins the next world, as often as needed);
takes SIGTERM as a preemption notice; notices peers that are powered off or frozen; leaves no process behind;
and closes the rendezvous only at success or at a final error. `store` hosts the store for rendezvous and
beats. Standard library, torch and the contract only, in one file, because it is also mounted alone into
images that have nothing of ours. Not here: budgets and backoff, which are the operator's; the rank's side of
the beats (engine/survival/heartbeat.py).

Sections: beats (shared with the rank's side), blame, processes, rendezvous, pulse, node, command line.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import inspect
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, cast

from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistNetworkError, DistStoreError
from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import SubprocessContext
from torch.distributed.elastic.rendezvous.api import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousGracefulExitError,
    RendezvousParameters,
)
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import (
    DynamicRendezvousHandler,
    RendezvousTimeout,
    _Action,
    _RendezvousContext,
)
from torch.distributed.launcher.api import LaunchConfig
from torch.distributed.run import config_from_args, get_args_parser

from aurl_trainer.contract import (
    DEFAULT_HANG_LIMITS,
    TRACEBACK_BYTES,
    Cause,
    Env,
    ExitCode,
    Phase,
    RankFailure,
    RecordError,
    Termination,
)

# ------------------------------------------------------------------------------------------------ beats
# Every agent and every rank of a world writes one small value into the store, again and again, and reads
# those of all others. A reader judges silence by its own clock since the value last changed, so that no
# clocks are compared, and by awake time, so that a reader that was itself frozen blames nobody.

PEER_TIMEOUT = 10.0
"""Seconds without a beat after which a rank or an agent counts as missing, unless the environment says."""

SUSPICION = 0.4
"""The part of it that suffices once a collective has failed: this world is lost already, only whom to charge
is open."""


BEAT_TIMEOUT = 3.0
"""Seconds that a reader of beats waits for a key that was there a moment ago."""


class State(StrEnum):
    """What a rank or an agent says of itself. All but the first two are last words."""

    RUNNING = "running"
    SUSPECT = "suspect"
    """A collective failed here; looking for the peer that is to blame."""
    DONE = "done"
    """An agent whose ranks all ended well: the end of the run, as far as they know."""
    LEFT = "left"
    """Gone by agreement of all ranks, or at the end: nobody needs to hurry."""
    BROKEN = "broken"
    """Gone because this world cannot go on: all others must leave it too."""
    FAILED = "failed"
    """Failed by itself: the one to blame."""


@dataclass(frozen=True)
class Beat:
    """One value in the store. `number` grows with each beat, 0 means that none came yet; `ticks` counts
    reports of progress inside one phase of one step."""

    number: int
    state: State
    node: str
    phase: Phase = Phase.START
    step: int = 0
    ticks: int = 0
    message: str = ""

    def to_json(self) -> str:
        """A compact JSON array."""
        values = (self.number, self.state, self.node, self.phase, self.step, self.ticks, self.message[:300])
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: bytes) -> Beat:
        """The beat in `text`; the inverse of to_json."""
        number, state, node, phase, step, ticks, message = json.loads(text)
        return cls(number, State(state), node, Phase(phase), step, ticks, message)


@dataclass(frozen=True)
class Seen:
    """A beat and, in seconds of the reader's awake time, how long since any change and since progress."""

    beat: Beat
    silent: float
    idle: float


class AwakeClock:
    """Seconds for which this process was awake: time that it lost while frozen counts at most one tick."""

    def __init__(self, longest_tick: float, now: Callable[[], float] = time.monotonic) -> None:
        self._longest, self._now, self._last, self._awake = longest_tick, now, now(), 0.0

    def tick(self) -> float:
        """Call often; returns the awake seconds so far."""
        now = self._now()
        self._awake += min(now - self._last, self._longest)
        self._last = now
        return self._awake


class Watch:
    """Remembers when each value last changed, by the reader's clock."""

    def __init__(self) -> None:
        self._changed: dict[str, tuple[Beat, float, float]] = {}

    def look(self, beats: Mapping[str, Beat], awake: float) -> dict[str, Seen]:
        """Take note of `beats`, read at `awake` seconds."""
        seen = {}
        for name, beat in beats.items():
            old, changed, moved = self._changed.get(name, (None, awake, awake))
            if old is not None and beat != old:
                changed = awake
                if (beat.phase, beat.step, beat.ticks) != (old.phase, old.step, old.ticks):
                    moved = awake
            self._changed[name] = (beat, changed, moved)
            seen[name] = Seen(beat, awake - changed, awake - moved)
        return seen


def agent_name(node: int) -> str:
    """Name in the store of the agent of group rank `node`."""
    return f"agent/{node}"


def rank_name(rank: int) -> str:
    """Name in the store of a rank."""
    return f"rank/{rank}"


def spoken(name: str) -> str:
    """A name as people say it: `rank 3`."""
    return name.replace("/", " ")


def missing(seen: Seen, timeout: float) -> bool:
    """Whether the one that beat so is gone: silent, although it has begun and has not said goodbye."""
    waited = seen.silent >= timeout and seen.beat.number > 0
    return waited and seen.beat.state in (State.RUNNING, State.SUSPECT)


def trouble(peers: Mapping[str, Seen], timeout: float) -> str | None:
    """Why this world cannot go on, in words that name the peer, or None."""
    for name, seen in peers.items():
        if seen.beat.state is State.FAILED:
            return f"{spoken(name)} on {seen.beat.node} failed: {seen.beat.message}"
    for name, seen in peers.items():
        if missing(seen, timeout):
            return f"{spoken(name)} on {seen.beat.node} has been silent for {seen.silent:.0f} s"
    for name, seen in peers.items():
        if seen.beat.state is State.BROKEN:
            return f"{spoken(name)} on {seen.beat.node} has left: {seen.beat.message}"
    return None


def departed(peers: Mapping[str, Seen]) -> str | None:
    """A peer that has gone in peace: with a failed collective it explains the failure."""
    for name, seen in peers.items():
        if seen.beat.state in (State.LEFT, State.DONE):
            return f"{spoken(name)} on {seen.beat.node} has left {seen.beat.message}".rstrip()
    return None


def late(rank: int, ranks: Mapping[int, Seen], limits: Mapping[Phase, float]) -> str | None:
    """Why `rank` is the one that did not arrive, or None.

    The one to blame is the least advanced living rank, judged by its own phase's limit: those that wait for
    it in Phase.SYNC are never blamed, and a rank that evaluates for long has its own long limit. If all wait
    in the same reduction, the lowest of them stands for it, so that an endless wait is booked once.
    """
    alive = {r: s for r, s in ranks.items() if s.beat.state is State.RUNNING}
    if rank not in alive:
        return None

    def position(r: int) -> tuple[int, int, bool, int, int]:
        beat = alive[r].beat
        return (min(beat.number, 1), beat.step, beat.phase is Phase.SYNC, beat.ticks, r)

    me = alive[rank]
    limit = limits[me.beat.phase]
    if me.idle <= limit or min(alive, key=position) != rank:
        return None
    waiting = sum(s.beat.phase is Phase.SYNC for r, s in alive.items() if r != rank)
    others = f"; {waiting} others wait" if waiting else ""
    where = f"phase {me.beat.phase} of step {me.beat.step}"
    return f"rank {rank} has made no progress in {where} for {limit:.0f} s{others}"


def hang_limits(text: str | None) -> dict[Phase, float]:
    """Seconds by phase: the defaults, with what AURL_HANG_LIMITS says laid over them."""
    given = json.loads(text) if text else {}
    return DEFAULT_HANG_LIMITS | {Phase(name): float(value) for name, value in given.items()}


def address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def connect(store: str, timeout: float, connect_timeout: float | None = None) -> TCPStore:
    """A client of the store at `host:port`, with a connection of its own. Raises DistNetworkError."""
    host, port = address(store)
    client = TCPStore(
        host,
        port,
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(seconds=connect_timeout or timeout),
    )
    client.set_timeout(timedelta(seconds=timeout))
    return client


class Board:
    """The beats of one world in the store, as one of its members writes and reads them."""

    def __init__(self, store: TCPStore, run: str, round_: int, nodes: int, ranks: int) -> None:
        """`run` is the rendezvous id, `round_` the rendezvous round that formed the world."""
        self._store, self._run, self._round = store, run, round_
        self._names = [*map(agent_name, range(nodes)), *map(rank_name, range(ranks))]
        self._watch = Watch()

    def write(self, name: str, beat: Beat) -> None:
        """Put one value."""
        self._store.set(f"{self._prefix(self._round)}{name}", beat.to_json())

    def read(self, awake: float) -> dict[str, Seen]:
        """All values that are there. `awake` is the reader's awake time, seconds."""
        keys = {name: f"{self._prefix(self._round)}{name}" for name in self._names}
        if not self._store.check(list(keys.values())):
            keys = {name: key for name, key in keys.items() if self._store.check([key])}
        values = self._store.multi_get(list(keys.values())) if keys else []
        beats = {name: Beat.from_json(value) for name, value in zip(keys, values, strict=True)}
        return self._watch.look(beats, awake)

    def open(self) -> None:
        """Say that this round is the newest, and clear away the beats of older rounds."""
        self._store.set(f"aurl/{self._run}/round", str(self._round))
        for key in self._store.list_keys():
            old = re.match(rf"/?(?:aurl/|torch\.rendezvous\.){re.escape(self._run)}[./](\d+)/", key)
            if old and int(old[1]) < self._round:
                self._store.delete_key(key.removeprefix("/"))

    def superseded(self) -> bool:
        """Whether a newer world has formed."""
        key = f"aurl/{self._run}/round"
        return bool(self._store.check([key])) and int(self._store.get(key)) > self._round

    def ask_regroup(self) -> None:
        """Ask the ranks to save and leave at a step's end: a node waits to join."""
        self._store.set(f"{self._prefix(self._round)}regroup", "1")

    def regroup_asked(self) -> bool:
        """Whether an agent has asked for it."""
        return bool(self._store.check([f"{self._prefix(self._round)}regroup"]))

    def _prefix(self, round_: int) -> str:
        return f"aurl/{self._run}/{round_}/"


# ------------------------------------------------------------------------------------------------ blame
# What the end of a rank means. Pure, but for reading the files that the rank has left.

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
            return RankEnd(rank, code, now, left, _last_line(left))
        extra = left["extraInfo"]
        return RankEnd(rank, code, float(extra["timestamp"]), extra["py_callstack"], left["message"])
    text = ""
    with contextlib.suppress(OSError), Path(stderr).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 8 * TRACEBACK_BYTES))
        # Once a process group is there, torch prints tracebacks with the rank before each line.
        text = re.sub(r"^\[rank\d+\]: ?", "", file.read().decode(errors="replace"), flags=re.MULTILINE)
        start = text.rfind("Traceback (most recent call last)")
        text = text[start:] if start >= 0 else text[-TRACEBACK_BYTES:]
    return RankEnd(rank, code, now, text, _last_line(text))


def _last_line(text: str) -> str:
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

    def record(self) -> Termination:
        """The record for the termination log."""
        code = self.code if self.rank_code is None else self.rank_code
        return Termination(self.cause, self.message, code, time.time(), self.rank, self.step, self.traceback)


ALL_WELL = "all ranks ended well"

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


def agent_failed(error: BaseException) -> Ending:
    """The ending for an error of the agent's own."""
    text = "".join(traceback.format_exception(error))
    return Ending(Cause.CRASH, ExitCode.CRASH, f"the agent failed: {error!r}", traceback=text)


# -------------------------------------------------------------------------------------------- processes
# Ranks die with the agent (the kernel's parent-death signal); what ranks have started is found by a mark in
# its environment and killed when a world ends, or, if the agent itself is killed, by a small guard process.

MARK = "AURL_AGENT_MARK"
"""Environment variable that all processes under one agent inherit, with that agent's own id."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

_START = (
    "import ctypes, os, sys\n"
    f"ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGKILL)})\n"
    # The agent may have died before the line above.
    f"os.getppid() == int(sys.argv[1]) or os._exit({int(ExitCode.REJOIN)})\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)
"""Makes a rank die with its agent, then becomes the rank. The signal survives exec, not fork."""


def kill_marked(mark: str, spare: int) -> None:
    """SIGKILL every process whose environment holds `mark` but `spare`, until none is left.

    Self-contained: the guard runs this source in a bare interpreter, which costs 8 MB instead of torch.
    """
    import os
    import signal
    import time

    for _ in range(200):
        found = False
        for entry in os.listdir("/proc"):  # noqa: PTH208 - the guard starts in 20 ms without pathlib
            if not entry.isdigit() or int(entry) in (spare, os.getpid()):
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


_GUARD = f"""{inspect.getsource(kill_marked)}
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
while os.read(0, 64):
    pass
kill_marked(sys.argv[1], int(sys.argv[2]))
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


# ------------------------------------------------------------------------------------------- rendezvous

RENDEZVOUS_DEFAULTS = {
    "last_call_timeout": 5,
    "join_timeout": 10 * 365 * 86400,
    "keep_alive_interval": 2,
    "keep_alive_max_attempt": 3,
    "read_timeout": 20,
    "connect_timeout": 300,
}
"""Seconds. Waiting for nodes is the operator's business; a silent node is out of the next world after 6 s."""


class Noticed(Exception):
    """A preemption notice came while no ranks were running."""


class _Backend(C10dRendezvousBackend):
    """torch's, but a notice ends the wait for other nodes."""

    def __init__(self, store: TCPStore, run: str, noticed: Callable[[], bool]) -> None:
        super().__init__(store, run)
        self.joining = False
        self._noticed = noticed

    def get_state(self) -> Any:
        """See base class."""
        self._check()
        return super().get_state()

    def set_state(self, state: bytes, token: Any = None) -> Any:
        """See base class."""
        self._check()
        return super().set_state(state, token)

    def _check(self) -> None:
        if self.joining and self._noticed():
            raise Noticed


class _LeaveOp:
    """Take this node off all lists, without closing the rendezvous for the others."""

    def __call__(self, context: _RendezvousContext, deadline: float) -> _Action:
        node, state = context.node, context.state
        if time.monotonic() > deadline:
            return _Action.ERROR_TIMEOUT
        if node in state.participants:
            return _Action.REMOVE_FROM_PARTICIPANTS
        if node in state.wait_list:
            return _Action.REMOVE_FROM_WAIT_LIST
        if node in state.redundancy_list:
            return _Action.REMOVE_FROM_REDUNDANCY_LIST
        return _Action.FINISH


class Rendezvous(DynamicRendezvousHandler):
    """torch's c10d rendezvous, with a way to leave it and a look at its round."""

    @classmethod
    def create(cls, store: TCPStore, p: RendezvousParameters, noticed: Callable[[], bool]) -> Rendezvous:
        """A handler on `store` whose wait for others ends when `noticed()`."""

        def seconds(name: str) -> timedelta | None:
            value = p.get_as_int(f"{name}_timeout")
            return None if value is None else timedelta(seconds=value)

        backend = _Backend(store, p.run_id, noticed)
        handler: Rendezvous = cls.from_backend(
            p.run_id,
            store,
            backend,
            p.min_nodes,
            p.max_nodes,
            p.local_addr,
            RendezvousTimeout(seconds("join"), seconds("last_call"), seconds("close"), seconds("heartbeat")),
            keep_alive_interval=cast(int, p.get_as_int("keep_alive_interval")),
            keep_alive_max_attempt=cast(int, p.get_as_int("keep_alive_max_attempt")),
        )
        handler.backend = backend
        return handler

    backend: _Backend

    def next_rendezvous(self) -> Any:
        """See base class. Raises Noticed."""
        self.backend.joining = True
        try:
            return super().next_rendezvous()
        finally:
            self.backend.joining = False

    @property
    def round(self) -> int:
        """The round as last read from the store."""
        return int(self._state_holder.state.round)

    def leave(self) -> None:
        """Get out of the way of the others' next world."""
        self._stop_heartbeats()
        self._op_executor.run(_LeaveOp(), self._get_deadline(timedelta(seconds=5)))


# ------------------------------------------------------------------------------------------------ pulse


@dataclass(frozen=True)
class News:
    """What an agent knows of its world, from the last exchange with the store."""

    trouble: str | None = None
    departed: str | None = None
    others_done: bool = False
    own: Mapping[int, Seen] = field(default_factory=dict)
    suspects: bool = False
    """An agent of lower number suspects a peer too."""
    superseded: str | None = None
    """That another world has formed without this node, in words."""
    ours: bool = False
    """Some rank of this world beats: it runs our loop."""


@dataclass
class _World:
    board: Board
    node: int
    nodes: int
    ranks: range
    news: News = field(default_factory=News)


class Pulse(threading.Thread):
    """Exchanges beats with the store; also the proof that the store still answers.

    `exchanges` grows with each answer: whoever watches it from outside notices a store that is frozen or
    powered off, on which a call may block for a quarter of an hour. `lost` holds the reason of a lost
    connection.
    """

    def __init__(self, store: TCPStore, run: str, node_name: str, timeout: float) -> None:
        super().__init__(name="pulse", daemon=True)
        self.exchanges = 0
        self.lost: str | None = None
        self._store, self._run, self._node_name, self._timeout = store, run, node_name, timeout
        self._interval = min(1.0, timeout / 10)
        self._clock = AwakeClock(2 * self._interval)
        self._lock = threading.Lock()
        self._world: _World | None = None
        self._state, self._message, self._number = State.RUNNING, "", 0
        self._wake = threading.Event()

    def enter(self, round_: int, node: int, nodes: int, ranks: range, world: int) -> None:
        """Beat in a new world, as agent `node` with the given ranks, for which first values are put."""
        board = Board(self._store, self._run, round_, nodes, world)
        with self._lock:
            if node == 0:
                board.open()
            for rank in ranks:
                board.write(rank_name(rank), Beat(0, State.RUNNING, self._node_name))
            self._state, self._message = State.RUNNING, ""
            self._world = _World(board, node, nodes, ranks)
            self._exchange(self._world)

    def leave(self, state: State, message: str) -> None:
        """Last word in this world; no beats after it."""
        with self._lock:
            self._state, self._message = state, message
            if self._world is not None:
                self._say(self._world)
            self._world = None

    def say(self, state: State, message: str) -> None:
        """Change what the beats say, at once."""
        with self._lock:
            self._state, self._message = state, message
            if self._world is not None:
                self._say(self._world)

    def ask_regroup(self) -> None:
        """Ask the ranks of this world to save and leave."""
        with self._lock:
            if self._world is not None:
                self._world.board.ask_regroup()

    def news(self, fresh: bool = False) -> News:
        """The newest knowledge; `fresh` asks the store now."""
        with self._lock:
            if self._world is None:
                return News()
            if fresh:
                self._exchange(self._world)
            return self._world.news

    def run(self) -> None:
        """The thread."""
        while True:
            try:
                with self._lock:
                    if self._world is not None:
                        self._exchange(self._world)
                    else:
                        self._store.check(["aurl"])
                self.exchanges += 1
            except DistStoreError:
                continue  # keys of this world vanished while reading: the next exchange finds out why
            except Exception as error:
                self.lost = _last_line(str(error)) or type(error).__name__
                return
            self._wake.wait(self._interval)

    def _say(self, world: _World) -> None:
        self._number += 1
        beat = Beat(self._number, self._state, self._node_name, message=self._message)
        world.board.write(agent_name(world.node), beat)

    def _exchange(self, world: _World) -> None:
        self._say(world)
        seen = world.board.read(self._clock.tick())
        own = {rank: seen[rank_name(rank)] for rank in world.ranks if rank_name(rank) in seen}
        mine = {agent_name(world.node), *map(rank_name, world.ranks)}
        peers = {name: s for name, s in seen.items() if name not in mine}
        agents = {name: s for name, s in peers.items() if name.startswith("agent/")}
        lower = {agent_name(node) for node in range(world.node)}
        world.news = News(
            trouble=trouble(peers, self._timeout * (SUSPICION if self._state is State.SUSPECT else 1.0)),
            departed=departed(agents),
            others_done=len(agents) == world.nodes - 1
            and all(s.beat.state is State.DONE for s in agents.values()),
            own=own,
            suspects=any(n in lower and s.beat.state is State.SUSPECT for n, s in agents.items()),
            superseded="another world has formed without this node" if world.board.superseded() else None,
            ours=any(s.beat.number > 0 for n, s in seen.items() if n.startswith("rank/")),
        )


# ------------------------------------------------------------------------------------------------- node


@dataclass(frozen=True)
class Settings:
    """What the environment says. Seconds throughout."""

    node: str
    grace: float
    peer_timeout: float
    limits: Mapping[Phase, float]
    termination_log: str | None

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Read AURL_*. Raises ValueError."""
        return cls(
            node=env.get(Env.NODE) or socket.gethostname(),
            grace=float(env.get(Env.GRACE_SECONDS, "30")),
            peer_timeout=float(env.get(Env.PEER_TIMEOUT, str(PEER_TIMEOUT))),
            limits=hang_limits(env.get(Env.HANG_LIMITS)),
            termination_log=env.get(Env.TERMINATION_LOG),
        )

    @property
    def notice(self) -> float:
        """How long ranks may take after a notice: the agent needs the last of the grace for its record."""
        return max(self.grace - 3.0, 0.8 * self.grace)


_STOP_SECONDS = 5.0
"""How long ranks of a broken world may take to die of SIGTERM."""

_AGREED_SECONDS = 30.0
"""How long the other ranks of a node may take to leave after the first has left in agreement."""


class Node(LocalElasticAgent):
    """torch's agent for the ranks of one node; its life is ours."""

    def __init__(
        self,
        spec: WorkerSpec,
        handler: Rendezvous,
        settings: Settings,
        pulse: Pulse,
        notice: threading.Event,
        **rest: Any,
    ) -> None:
        super().__init__(spec, **rest)
        self._rendezvous_handler = handler
        self._settings, self._pulse, self._notice = settings, pulse, notice
        self._mark = uuid.uuid4().hex
        os.environ[MARK] = self._mark
        self.guard = start_guard(self._mark)
        self._ends: dict[int, RankEnd] = {}
        self._formed = 0.0
        self._oom_before = 0
        self._rounds = 0
        self.done = False
        """All own ranks ended well and that was the end of the run: nothing may spoil it any more."""

    def run(self, role: str = "") -> RunResult:
        """Not torch's: see `live`."""
        raise NotImplementedError

    def live(self) -> Ending:
        """World after world, until this node has a reason to end. Never raises."""
        try:
            result = None
            while result is None:
                try:
                    self._form()
                    result = self._watch()
                except DistStoreError as error:
                    self._say(f"the world did not form: {_last_line(str(error))}")
                finally:
                    self.clear()
            if result.cause in (Cause.SUCCEEDED, Cause.FINAL_ERROR):
                self._close(result)
            else:
                self._rendezvous_handler.leave()
            return result
        except Noticed:
            with contextlib.suppress(Exception):
                self._rendezvous_handler.leave()
            return ending(Cause.PREEMPTED, "told to leave before its ranks ran")
        except (RendezvousClosedError, RendezvousGracefulExitError):
            return self._closed()
        except (RendezvousConnectionError, DistNetworkError) as error:
            if self.done:
                return ending(Cause.SUCCEEDED, ALL_WELL)
            return ending(Cause.STORE_LOST, f"the store does not answer: {_last_line(str(error))}")
        except BaseException as error:
            return agent_failed(error)

    # -- one world

    def _form(self) -> None:
        group = self._worker_group
        self._rendezvous(group)
        node, nodes = cast(int, group.group_rank), cast(int, group.group_world_size)
        if self._notice.is_set():
            raise Noticed
        ranks = range(group.workers[0].global_rank, group.workers[-1].global_rank + 1)
        world = group.workers[0].world_size
        round_ = self._rendezvous_handler.round
        self._pulse.enter(round_, node, nodes, ranks, world)
        self._say(
            f"world of {nodes} nodes, {world} ranks (round {round_}); here: {', '.join(map(str, ranks))}"
        )
        os.environ[Env.ROUND] = str(round_)
        self._ends = {}
        self._oom_before = oom_kills()
        # torch derives the number of restarts, which names the folder of the logs, from what remains.
        self._remaining_restarts = group.spec.max_restarts - self._rounds
        self._rounds += 1
        for local, pid in self._start_workers(group).items():
            group.workers[local].id = pid
        group.state = WorkerState.HEALTHY
        self._formed = time.monotonic()

    def _watch(self) -> Ending | None:
        """Wait until this world ends. None: join the next one."""
        noticed: float | None = None
        regroup_asked = False
        troubled: float | None = None
        while True:
            time.sleep(self._worker_group.spec.monitor_interval)
            if self.guard.poll() is not None:
                self.guard = start_guard(self._mark)
            self._poll()
            if not self._running():
                if all(end.code == 0 for end in self._ends.values()):
                    return self._finish()
                return self._noticed() if noticed is not None else self._settle()
            if self._notice.is_set() and noticed is None:
                noticed = time.monotonic()
                self._say("notice: told to leave")
                self._signal(signal.SIGTERM)
            if noticed is not None:
                if time.monotonic() - noticed > self._settings.notice:
                    return self._noticed()
                continue
            if any(end.code != 0 for end in self._ends.values()):
                return self._settle()
            news = self._pulse.news()
            if (verdict := self._hung(news)) is not None:
                return verdict
            if news.superseded is not None:
                return self._rejoin(news.superseded, 0.0)
            if news.trouble is not None:
                # Our own ranks see it too, and leave by themselves.
                troubled = troubled or time.monotonic()
                if not news.ours:
                    return self._rejoin(news.trouble, _STOP_SECONDS)
                if time.monotonic() - troubled > _STOP_SECONDS:
                    return self._rejoin(news.trouble, 0.0)
            elif not regroup_asked and self._rendezvous_handler.num_nodes_waiting() > 0:
                if not news.ours:
                    return self._rejoin("a node waits to join", self._settings.grace)
                self._say("a node waits to join: asking the ranks to save and leave")
                self._pulse.ask_regroup()
                regroup_asked = True

    def _settle(self) -> Ending | None:
        """A rank has ended badly: find out whose fault it is. None: not ours, join the next world."""
        started = time.monotonic()
        suspecting = False
        while True:
            self._poll()
            end, fault, cause = to_blame(self._blamed())
            news = self._pulse.news(fresh=True)
            waited = time.monotonic() - started
            idle = not self._running()
            if fault is Fault.OWN:
                return self._failed(end, cause)
            if fault is Fault.NOTICE and (idle or waited > _AGREED_SECONDS):
                return self._left(ending(Cause.PREEMPTED, f"rank {end.rank} was told to leave"))
            if fault is Fault.WORLD and (idle or waited > _AGREED_SECONDS):
                return self._rejoin(news.trouble or f"rank {end.rank} left for the next world", 0.0)
            if fault is Fault.PEER:
                why = news.trouble or news.departed or news.superseded
                if why is not None:
                    seen = f"rank {end.rank}: {end.message or how_it_ended(end.code)}"
                    return self._rejoin(f"{why} ({seen})", 0.0)
                alone = self._worker_group.group_world_size == 1
                # Of several that suspect each other the lowest answers for it; the others learn it then.
                patience = self._settings.peer_timeout * (1.0 if not news.suspects else 1.5) + 1.0
                if (alone and idle) or waited > patience:
                    return self._failed(end, cause)
                if not suspecting:
                    self._pulse.say(State.SUSPECT, f"rank {end.rank}: {end.message}")
                    suspecting = True
            if self._notice.is_set():
                return self._noticed()
            time.sleep(self._worker_group.spec.monitor_interval)

    def _finish(self) -> Ending | None:
        """All own ranks ended well. Their word is enough if they are ours; else all nodes must say so."""
        news = self._pulse.news(fresh=True)
        self._pulse.say(State.DONE, "")
        if any(seen.beat.number > 0 for seen in news.own.values()):
            self.done = True
        while not self.done:
            news = self._pulse.news(fresh=True)
            if news.others_done or self._notice.is_set():
                self.done = True
            elif (why := news.trouble or news.superseded) is not None:
                return self._rejoin(why, 0.0)
            else:
                time.sleep(self._worker_group.spec.monitor_interval)
        return ending(Cause.SUCCEEDED, ALL_WELL)

    def _hung(self, news: News) -> Ending | None:
        """A rank of this node that lives but does not beat: frozen, or C code holds the interpreter."""
        for rank, seen in news.own.items():
            if rank in self._ends:
                continue
            beat, limits = seen.beat, self._settings.limits
            if beat.number > 0 and missing(seen, self._settings.peer_timeout):
                message = f"rank {rank} lives but has not beaten for {seen.silent:.0f} s"
            elif beat.number == 0 and news.ours and seen.silent > limits[Phase.START]:
                message = f"rank {rank} has not begun to beat for {seen.silent:.0f} s"
            elif beat.state is State.LEFT and seen.silent > limits[Phase.END]:
                message = f"rank {rank} has said goodbye but does not end"
            else:
                continue
            local = self._local(rank)
            text = ""
            with contextlib.suppress(OSError):
                text = main_thread_stack(Path(f"{self._context.error_files[local]}.stacks").read_text())
            self._poll()
            if rank in self._ends:
                return None
            end = RankEnd(rank, int(ExitCode.HANG), time.time(), text, message, Cause.HANG, beat.step)
            return self._failed(end, Cause.HANG)
        return None

    # -- ways out of a world

    def _rejoin(self, why: str, seconds: float) -> Ending | None:
        """Stop what still runs, within `seconds`, and go on to the next world: always None."""
        self._say(f"joins the next world: {why}")
        if self._running() and seconds > 0:
            self._pulse.say(State.BROKEN, why)
            self._signal(signal.SIGTERM)
            self._wait(seconds)
        self._pulse.leave(self._parting(), why)
        return None

    def _failed(self, end: RankEnd, cause: Cause) -> Ending:
        message = end.message or how_it_ended(end.code)
        if end.message and end.code < 0:
            message += f" ({how_it_ended(end.code)})"
        if not message.startswith(f"rank {end.rank} "):
            message = f"rank {end.rank}: {message}"
        self._say(f"{cause}: {message}")
        self._pulse.leave(State.FAILED, message)
        return ending(cause, message, end)

    def _noticed(self) -> Ending:
        late_ranks = sorted(set(self._pids()) - set(self._ends))
        message = "left after a notice"
        if late_ranks:
            names = ", ".join(map(str, late_ranks))
            message += f"; ranks {names} did not end in {self._settings.notice:.0f} s"
        return self._left(ending(Cause.PREEMPTED, message))

    def _left(self, result: Ending) -> Ending:
        self._say(result.message)
        self._pulse.leave(self._parting(), result.message)
        return result

    def _parting(self) -> State:
        """Whether all own ranks left in agreement with the others."""
        own = self._pulse.news(fresh=True).own.values()
        agreed = bool(own) and all(seen.beat.state is State.LEFT for seen in own)
        return State.LEFT if agreed else State.BROKEN

    def _close(self, result: Ending) -> None:
        """The end for all nodes: nobody needs to join any more."""
        with contextlib.suppress(Exception):
            self._rendezvous_handler._store.set(self._closed_key(), result.record().to_json())
            self._rendezvous_handler.shutdown()

    def _closed(self) -> Ending:
        """Somebody has closed the rendezvous: end as they did."""
        store = self._rendezvous_handler._store
        if not store.check([self._closed_key()]):
            return ending(Cause.FINAL_ERROR, "the rendezvous is closed, and nobody has said why")
        other = Termination.from_json(store.get(self._closed_key()))
        if other.cause == Cause.SUCCEEDED:
            return ending(Cause.SUCCEEDED, "the run had ended before this node joined")
        final = ending(Cause.FINAL_ERROR, f"another node has ended the run: {other.message}")
        return replace(final, rank_code=other.exit_code)

    def _closed_key(self) -> str:
        return f"aurl/{self._rendezvous_handler.get_run_id()}/closed"

    # -- processes of this node

    def clear(self) -> None:
        """Kill whatever of the last world still lives: ranks, what they started, and orphans."""
        handlers = getattr(self._pcontext, "subprocess_handlers", {})
        for handler in handlers.values():
            if handler.proc.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(handler.proc.pid, signal.SIGKILL)
        kill_marked(f"{MARK}={self._mark}", os.getpid())
        for handler in handlers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                handler.proc.wait(30)  # in uninterruptible sleep it outlasts even SIGKILL
            for stream in (handler._stdout, handler._stderr):
                if stream is not None:
                    stream.close()
        reap_orphans({self.guard.pid})
        if self._pcontext is not None:
            self._pcontext.close()
            self._pcontext = None

    @property
    def _context(self) -> SubprocessContext:
        """The processes of this world's ranks."""
        assert isinstance(self._pcontext, SubprocessContext)
        return self._pcontext

    def _pids(self) -> dict[int, int]:
        return {worker.global_rank: worker.id for worker in self._worker_group.workers}

    def _running(self) -> bool:
        return len(self._ends) < len(self._worker_group.workers)

    def _local(self, rank: int) -> int:
        return rank - int(self._worker_group.workers[0].global_rank)

    def _poll(self) -> None:
        """Take note of ranks that have ended."""
        for worker in self._worker_group.workers:
            rank, local = worker.global_rank, worker.local_rank
            code = self._context.subprocess_handlers[local].proc.poll()
            if code is not None and rank not in self._ends:
                error_file, stderr = self._context.error_files[local], self._context.stderrs[local]
                self._ends[rank] = rank_end(rank, code, error_file, stderr)

    def _blamed(self) -> list[tuple[RankEnd, Fault, Cause]]:
        oom_killed = oom_kills() > self._oom_before
        port = int(cast(int, self._worker_group.master_port))
        bad = [end for end in self._ends.values() if end.code != 0]
        return [(end, *blame(end, oom_killed=oom_killed, master_port=port)) for end in bad]

    def _signal(self, number: int) -> None:
        """To the ranks alone, not their process groups: workers that read data must not die of a notice."""
        for rank, pid in self._pids().items():
            if rank not in self._ends:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._running() and time.monotonic() < deadline:
            time.sleep(0.05)
            self._poll()

    def _say(self, text: str) -> None:
        say(self._settings.node, text)


def say(node: str, text: str) -> None:
    """A line for the log."""
    print(f"[agent of {node}] {text}", file=sys.stderr, flush=True)


# ----------------------------------------------------------------------------------------- command line


def listen(host: str, port: int) -> TCPStore:
    """Host a store that is reached only through `host`'s own address; port 0 takes a free one.

    torch's server would listen on every address of the machine, and agents trust what they read there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    bound = listener.getsockname()[1]
    return TCPStore(
        host,
        bound,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def run(arguments: Sequence[str]) -> NoReturn:
    """Be a node's agent until it ends. The main thread hears signals and watches the store; a second one
    lives the node's life, in which calls into torch may block; a third is the pulse."""
    signals: list[int] = []
    notice = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        signals.append(number)
        notice.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    adopt_orphans()
    scratch = tempfile.mkdtemp(prefix="aurl-agent-")
    try:
        launch = _launch(arguments, scratch)
    except SystemExit as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if error.code:
            final = Ending(
                Cause.FINAL_ERROR, ExitCode.USAGE, "the agent's arguments or environment are wrong"
            )
            _leave_record(final, os.environ.get(Env.NODE, ""), os.environ.get(Env.TERMINATION_LOG))
        raise
    settings = launch.settings
    pulses: list[Pulse] = []
    nodes: list[Node] = []
    endings: list[Ending] = []
    ended = threading.Event()

    def life() -> None:
        try:
            pulse, node = _connect(launch, notice)
            pulses.append(pulse)
            nodes.append(node)
            endings.append(node.live())
        except (RendezvousConnectionError, DistNetworkError, DistStoreError) as error:
            endings.append(ending(Cause.STORE_LOST, f"the store cannot be reached: {_last_line(str(error))}"))
        except BaseException as error:
            endings.append(agent_failed(error))
        finally:
            ended.set()

    threading.Thread(target=life, name="life", daemon=True).start()
    clock = AwakeClock(0.5)
    heard, answered = 0, 0.0
    told: float | None = None
    verdict: Ending | None = None
    while not ended.wait(0.1) and verdict is None:
        awake = clock.tick()
        if signals and told is None:
            told = awake
        if len(signals) > 1:
            verdict = ending(Cause.PREEMPTED, "stopped at once by a second signal")
        elif told is not None and awake - told > 0.5 * (settings.grace + settings.notice):
            verdict = ending(Cause.PREEMPTED, "told to leave; did not get ready in time")
        for pulse, node in zip(pulses, nodes, strict=False):
            if pulse.exchanges != heard:
                heard, answered = pulse.exchanges, awake
            silent = awake - answered
            if pulse.lost is None and silent <= settings.peer_timeout:
                continue
            why = pulse.lost or f"no answer for {silent:.0f} s"
            lost = ending(Cause.STORE_LOST, f"the store for rendezvous and beats is lost: {why}")
            verdict = ending(Cause.SUCCEEDED, ALL_WELL) if node.done else lost
    if verdict is not None and nodes:
        with contextlib.suppress(Exception):
            nodes[0].clear()
    last = verdict or endings[0]
    _leave_record(last, settings.node, settings.termination_log)
    shutil.rmtree(scratch, ignore_errors=True)
    if last.cause is not Cause.SUCCEEDED:
        say(settings.node, f"ends with code {int(last.code)} ({last.cause}): {last.message}")
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a thread may be blocked in a call that never returns.
    os._exit(last.code)


@dataclass(frozen=True)
class Launch:
    """What torchrun's arguments and the environment say together. The store lives as long as `server`."""

    settings: Settings
    config: LaunchConfig
    command: tuple[str, ...]
    store: str
    server: TCPStore | None


def _launch(arguments: Sequence[str], scratch: str) -> Launch:
    """Read arguments and environment. Ends the process, as argparse does, if they are wrong."""
    parser = get_args_parser()
    parser.prog = "agent run"
    args = parser.parse_args(arguments)
    if args.run_path:
        parser.error("--run-path is not supported: ranks are processes of their own")
    store, server = os.environ.get(Env.STORE), None
    if store is None and args.nnodes.split(":")[-1] == "1":
        server = listen("127.0.0.1", 0)
        store = f"127.0.0.1:{server.port}"
    store = store or args.rdzv_endpoint
    if not store:
        parser.error(f"several nodes need the address of a store: set {Env.STORE} or --rdzv-endpoint")
    args.rdzv_backend, args.rdzv_endpoint = "c10d", store
    if args.rdzv_id == "none":
        args.rdzv_id = os.environ.get(Env.RUN_ID) or uuid.uuid4().hex
    if args.redirects == "0" and args.tee == "0":
        args.tee = "3"  # the tail of stderr is all that a foreign script leaves
    args.log_dir = args.log_dir or scratch
    os.environ.setdefault("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", "[rank ${rank}] ")
    # torch: with one store for agents and ranks, a scale-up or a replacement ends in DistStoreError.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if args.nproc_per_node.isdigit():
        os.environ.setdefault("TORCH_ELASTIC_WORKER_IDENTICAL", "1")
    try:
        settings = Settings.from_environment()
        address(store)
        config, command, rest = config_from_args(args)
    except (AssertionError, ValueError) as error:
        parser.error(str(error))
    os.environ[Env.STORE] = store
    shim = ("-I", "-S", "-c", _START, str(os.getpid()), cast(str, command), *rest)
    return Launch(settings, config, shim, store, server)


def _connect(launch: Launch, notice: threading.Event) -> tuple[Pulse, Node]:
    """Reach the store, for as long as that may take, and make the node."""
    config, settings = launch.config, launch.settings
    # torch would handle signals in the main thread, where we do, and warns that it cannot in this one.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.ERROR)
    conf = RENDEZVOUS_DEFAULTS | config.rdzv_configs
    parameters = RendezvousParameters(
        "c10d", launch.store, config.run_id, config.min_nodes, config.max_nodes, config.local_addr, **conf
    )
    store = connect(launch.store, float(conf["read_timeout"]), float(conf["connect_timeout"]))
    handler = Rendezvous.create(store, parameters, notice.is_set)
    pulse = Pulse(
        connect(launch.store, BEAT_TIMEOUT, 30.0), config.run_id, settings.node, settings.peer_timeout
    )
    pulse.start()
    spec = WorkerSpec(
        role=config.role,
        local_world_size=config.nproc_per_node,
        entrypoint=sys.executable,
        args=launch.command,
        rdzv_handler=handler,
        max_restarts=config.max_restarts,
        monitor_interval=config.monitor_interval,
        local_addr=config.local_addr,
        event_log_handler=config.event_log_handler,
        numa_options=config.numa_options,
        duplicate_stdout_filters=config.duplicate_stdout_filters,
        duplicate_stderr_filters=config.duplicate_stderr_filters,
        virtual_local_rank=config.virtual_local_rank,
    )
    node = Node(
        spec,
        handler,
        settings,
        pulse,
        notice,
        logs_specs=config.logs_specs,
        start_method=config.start_method,
        log_line_prefix_template=config.log_line_prefix_template,
    )
    return pulse, node


def _leave_record(last: Ending, node: str, file: str | None) -> None:
    if file is None:
        return
    try:
        # The kubelet's file exists already and cannot be replaced, only written.
        Path(file).write_text(last.record().to_json())
    except OSError as error:
        say(node, f"cannot write {file}: {error.strerror}")


def store(arguments: Sequence[str]) -> int:
    """Host the store until SIGTERM."""
    parser = argparse.ArgumentParser(prog="agent store", description=store.__doc__)
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all of IPv4)")
    parser.add_argument("--port", type=int, default=29400, help="port; 0 takes a free one")
    args = parser.parse_args(arguments)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    try:
        server = listen(args.host, args.port)
    except OSError as error:
        print(f"store: cannot listen on {args.host}:{args.port}: {error.strerror}", file=sys.stderr)
        return ExitCode.MISSING
    print(f"store ready on {args.host}:{server.port}", flush=True)
    over.wait()
    return ExitCode.OK


def main() -> NoReturn:
    """`run` or `store`."""
    command, rest = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if command == "run":
        run(rest)
    if command == "store":
        sys.exit(store(rest))
    print(__doc__, file=sys.stderr)
    sys.exit(ExitCode.OK if command in ("-h", "--help") else ExitCode.USAGE)


if __name__ == "__main__":
    main()
