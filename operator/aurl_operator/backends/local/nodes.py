"""The local backend's eyes and hands: what `core/observed.py` asks for, and what `core/plan.py` orders.

Here: one record per process of the run, from its start until the core has it removed. Not here: starting and
killing (`processes.py`), the decision (`core/`), the loop (`supervisor.py`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from aurl_operator.backends.local.process.ports import free_port
from aurl_operator.backends.local.process.processes import Ended, Processes
from aurl_operator.backends.local.progress import Poller
from aurl_operator.core.observed import (
    End,
    Notice,
    Process,
    Refusal,
    Role,
    State,
    Waiting,
    WaitingReason,
)
from aurl_operator.core.plan import Action, Remove, Start, Stop
from aurl_operator.errors import AurlError
from aurl_operator.launch.command import Command
from aurl_trainer.contract import TERMINATION_BYTES, Progress, RecordError, Termination

FROZEN_SECONDS = 10.0
"""An agent that is stopped (SIGSTOP) for so long counts as a machine that has gone silent, and is fenced."""


@dataclass(frozen=True)
class Assignment:
    """What the backend adds to a Start: the process's identity, files and ports."""

    uid: str
    log: Path
    termination_log: Path
    port: int
    """Of a node: for its progress; of a store: where it listens."""


Build = Callable[[Start, Assignment], Command]
"""Makes the command of a start; see `local/build.py`."""


@dataclass
class _Entry:
    process: Process
    assignment: Assignment
    kill_at: float | None = None
    stopped_since: float | None = None


class LocalNodes:
    """All processes of one run on this machine."""

    def __init__(
        self,
        processes: Processes,
        build: Build,
        logs: Path,
        poller: Poller,
        grace_seconds: float,
        capacity: int | None = None,
    ) -> None:
        """`grace_seconds`: what the owner of a machine gives after a notice. `capacity`: nodes that this
        machine offers at once; None: as many as are asked for.
        """
        self._processes = processes
        self._build = build
        self._logs = logs
        self._capacity = capacity
        self._poller = poller
        self._grace = grace_seconds
        self._entries: dict[str, _Entry] = {}
        self._refusals: dict[tuple[Role, int], Refusal] = {}

    def observe(self, now: float) -> tuple[Process, ...]:
        """Every process of the run as it is now, ended ones until they are removed."""
        for ended in self._processes.ended():
            self._book(ended)
        for uid, entry in self._entries.items():
            if entry.process.state is not State.ENDED:
                self._look(uid, entry, now)
        return tuple(entry.process for entry in self._entries.values())

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Starts that were refused and not tried again since."""
        return tuple(self._refusals.values())

    def progress(self) -> Progress | None:
        """The newest answer of a rank 0, of any node; None if none answers."""
        ports = {u: e.assignment.port for u, e in self._running(Role.NODE).items()}
        answers = [p for p in self._poller.ask(ports).values() if p.rank == 0]
        return max(answers, key=lambda p: (p.generation, p.at), default=None)

    def act(self, action: Action, now: float) -> None:
        """Carries out a start, a stop or a removal; whatever else there is belongs to clusters."""
        if isinstance(action, Start):
            self._start(action, now)
        elif isinstance(action, Stop):
            entry = self._entries.get(action.uid)
            if entry is not None and entry.process.state is not State.ENDED:
                self._stop(entry, action, now)
        elif isinstance(action, Remove):
            self._entries.pop(action.uid, None)

    def notice(self, uid: str, at: float, message: str) -> None:
        """The machine's owner takes this node back: SIGTERM, and SIGKILL when the grace period is over."""
        entry = self._entries[uid]
        deadline = at + self._grace
        entry.process = replace(entry.process, notice=Notice(at, message, deadline), stopping_since=at)
        entry.kill_at = deadline
        self._processes.notify(uid)

    def kill(self, uid: str) -> None:
        """The machine vanishes: SIGKILL to the node's process and all it started."""
        self._processes.kill(uid)

    def freeze(self, uid: str) -> None:
        """The machine hangs: SIGSTOP to the node's process and all it started."""
        self._processes.freeze(uid)

    def signal_rank(self, uid: str, local_rank: int, number: int) -> bool:
        """A signal to one training process of a node. Returns whether it was found."""
        return self._processes.signal_rank(uid, local_rank, number)

    def find(self, name: str) -> Process | None:
        """The newest running process of a node (`worker-1`) or of the store (`store`)."""
        running = [e.process for e in self._entries.values() if e.process.state is State.RUNNING]
        named = [p for p in running if name in (p.name, p.name.rpartition("-")[0], p.role.value)]
        return max(named, key=lambda p: p.attempt, default=None)

    def _running(self, role: Role) -> dict[str, _Entry]:
        return {
            uid: entry
            for uid, entry in self._entries.items()
            if entry.process.role is role and entry.process.state is State.RUNNING
        }

    def _look(self, uid: str, entry: _Entry, now: float) -> None:
        if entry.kill_at is not None and now >= entry.kill_at:
            self._processes.kill(uid)
        elif _is_stopped(self._processes.alive().get(uid)):
            entry.stopped_since = entry.stopped_since or now
            entry.process = replace(entry.process, ready=False)
            if now - entry.stopped_since >= FROZEN_SECONDS:
                self._processes.kill(uid)
        else:
            entry.stopped_since = None
            is_node = entry.process.role is not Role.STORE
            ready = is_node or entry.process.ready or self._poller.accepts(entry.assignment.port)
            entry.process = replace(entry.process, ready=ready)

    def _start(self, start: Start, now: float) -> None:
        if any(e.process.name == start.name for e in self._entries.values()):
            return
        self._refusals.pop((start.role, start.index), None)
        if start.role is Role.NODE and self._capacity is not None:
            taken = len(self._running(Role.NODE))
            if taken >= self._capacity:
                words = f"this machine offers {self._capacity} nodes (--capacity)"
                self._refuse(start, Waiting(WaitingReason.UNSCHEDULABLE, words), now)
                return
        assignment = Assignment(
            uid=uuid.uuid4().hex,
            log=self._logs / f"{start.name}.log",
            termination_log=self._logs / f"{start.name}.termination.json",
            port=free_port(),
        )
        assignment.termination_log.unlink(missing_ok=True)
        try:
            self._processes.start(start.name, assignment.uid, self._build(start, assignment), assignment.log)
        except AurlError as error:
            self._refuse(start, Waiting(WaitingReason.REFUSED, str(error), final=True), now)
            return
        process = Process(
            role=start.role,
            uid=assignment.uid,
            name=start.name,
            index=start.index,
            attempt=start.attempt,
            round=start.round,
            state=State.RUNNING,
            ready=start.role is not Role.STORE,
            since=now,
            address=f"127.0.0.1:{assignment.port}" if start.role is Role.STORE else None,
        )
        self._entries[assignment.uid] = _Entry(process, assignment)

    def _refuse(self, start: Start, waiting: Waiting, now: float) -> None:
        refusal = Refusal(start.role, start.index, start.attempt, waiting, now)
        self._refusals[start.role, start.index] = refusal

    def _stop(self, entry: _Entry, stop: Stop, now: float) -> None:
        if stop.kill:
            self._processes.kill(stop.uid)
            return
        if not entry.process.stopping:
            self._processes.notify(stop.uid)
            entry.process = replace(entry.process, stopping_since=now)
        deadline = now + stop.grace_seconds
        entry.kill_at = deadline if entry.kill_at is None else min(entry.kill_at, deadline)

    def _book(self, ended: Ended) -> None:
        entry = self._entries[ended.uid]
        frozen = entry.stopped_since is not None and ended.code < 0
        entry.process = replace(
            entry.process,
            state=State.ENDED,
            end=End(
                at=ended.at,
                exit_code=ended.code if ended.code >= 0 else None,
                signal=-ended.code if ended.code < 0 else None,
                termination=_termination(entry.assignment.termination_log),
                disrupted=entry.process.notice is not None,
                node_lost=frozen,
                message="stopped for too long (SIGSTOP)" if frozen else "",
            ),
        )


def _termination(path: Path) -> Termination | None:
    """What the agent wrote last; None if it could not."""
    try:
        with path.open("rb") as file:
            return Termination.from_json(file.read(2 * TERMINATION_BYTES))
    except (OSError, RecordError):
        return None


def _is_stopped(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False
