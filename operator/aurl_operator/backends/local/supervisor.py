"""The loop of a local run: observe, reconcile, persist, book, act, until the job has ended or is suspended.

Not here: what is decided (`core/`), what people see (`commands/`): watchers are told what happened.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.api.status import JobPhase, JobStatus
from aurl_operator.backends.local.nodes import LocalNodes
from aurl_operator.backends.local.rundir import RunDir
from aurl_operator.core.memory import Memory, Outcome
from aurl_operator.core.observed import LOCAL, Observed, Process, State
from aurl_operator.core.plan import Plan
from aurl_operator.core.reconcile import reconcile
from aurl_operator.core.revive import revive
from aurl_operator.errors import StoppedError
from aurl_trainer.contract import LedgerEntry, Progress

log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
POLL_SECONDS = 0.5
"""Seconds between questions for progress."""

DOUBT_SECONDS = 60.0
"""After an answer that cannot be used, nodes are not asked for so long."""

AWAY_SECONDS = 30.0
"""Without a look for so long, the supervisor was away: a laptop that slept, a process that was stopped."""

SNAPSHOT_SECONDS = 2.0
"""state.json is written at least so often while only what people read has changed."""


@dataclass(frozen=True)
class Moment:
    """What a watcher is told after each look: the run now, and the ledger's new entries."""

    now: float
    processes: Sequence[Process]
    progress: Progress | None
    status: JobStatus
    entries: Sequence[LedgerEntry]
    interrupts: int
    trouble: str | None = None
    """What keeps the supervisor from acting, such as a full disk."""


Watcher = Callable[[Moment], None]


class Interrupts:
    """Counts SIGINT, SIGTERM and SIGHUP while it is entered, instead of being ended by them."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in self.SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # Who has asked twice may ask again: the way out is taken already, and must not be cut short.
            signal.signal(number, signal.SIG_IGN if self.count > 1 else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


class Supervisor:
    """Runs one job in one opened run directory."""

    def __init__(
        self, job: AurlTrainingJob, run: RunDir, nodes: LocalNodes, watchers: Sequence[Watcher]
    ) -> None:
        self._job = job
        self._run = run
        self._nodes = nodes
        self._watchers = watchers
        self._memory = revive(remembered(run.state))
        self._progress: Progress | None = None
        self._asked = 0.0
        self._saved = 0.0
        self._looked = 0.0
        self._reached_since = 0.0

    def run(self, interrupts: Interrupts) -> JobStatus:
        """Until the job has ended (`status.exit_code`) or is suspended with nothing alive.

        One interrupt suspends the job. Raises StoppedError at the second one; the caller kills what lives.
        """
        while True:
            moment, plan = self._look(interrupts.count)
            for watcher in self._watchers:
                watcher(moment)
            if _is_over(moment, plan):
                self._snapshot(moment)
                return moment.status
            if interrupts.count > 1:
                raise StoppedError("stopped at once; what was done since the last checkpoint is lost")
            time.sleep(max(0.01, min(TICK_SECONDS, plan.wake_after or TICK_SECONDS)))

    def _look(self, interrupts: int) -> tuple[Moment, Plan]:
        now = time.time()
        if now - self._looked > AWAY_SECONDS:
            self._reached_since = now
        self._looked = now
        processes = self._nodes.observe(now)
        if now - self._asked >= POLL_SECONDS:
            self._asked = now
            self._progress = self._nodes.progress() or self._progress
        plan, usable = decide(
            Observed(
                now=now,
                job=self._job,
                run_id=self._run.run_id,
                memory=self._memory,
                processes=processes,
                progress=self._progress,
                reached_since=self._reached_since,
                refusals=self._nodes.refusals,
                suspended=interrupts > 0,
                capabilities=LOCAL,
            )
        )
        if usable is not self._progress:
            self._progress, self._asked = usable, now + DOUBT_SECONDS
            self._reached_since = self._asked
        entries: list[LedgerEntry] = []
        trouble = None
        try:
            entries += self._run.book(
                self._memory.outbox
            )  # of a supervisor that died, or a disk that was full
            self._persist(plan, processes, now)
            entries += self._run.book(plan.ledger)
        except OSError as error:  # a full disk: nothing may be done that is not written down
            trouble = f"{self._run.path}: {error.strerror}; waiting until it can be written again"
        else:
            for action in plan.actions:
                self._nodes.act(action, now)
        moment = Moment(now, processes, self._progress, plan.status, entries, interrupts, trouble)
        return moment, plan

    def _persist(self, plan: Plan, processes: Sequence[Process], now: float) -> None:
        if plan.urgent or now - self._saved >= SNAPSHOT_SECONDS:
            self._write(plan.memory, plan.status, processes, now)
        self._memory = plan.memory

    def _snapshot(self, moment: Moment) -> None:
        self._write(self._memory, moment.status, moment.processes, moment.now)

    def _write(self, memory: Memory, status: JobStatus, processes: Sequence[Process], now: float) -> None:
        self._run.state |= {
            "memory": json.loads(memory.to_json()),
            "status": status.to_object(),
            "processes": [
                {"name": p.name, "uid": p.uid, "state": p.state, "ready": p.ready, "since": p.since}
                for p in processes
            ],
            "at": now,
        }
        self._run.save()
        self._saved = now


def decide(seen: Observed) -> tuple[Plan, Progress | None]:
    """The core's plan, and the progress that it could use: what nodes say of theirs ends no run."""
    try:
        return reconcile(seen), seen.progress
    except Exception:
        if seen.progress is None:
            raise
        log.exception("progress that nodes reported cannot be used, and is left out; please report this")
        return reconcile(dataclasses.replace(seen, progress=None)), None


def _is_over(moment: Moment, plan: Plan) -> bool:
    """Whether nothing lives, nothing will be started, and all is written down."""
    alive = any(p.state is not State.ENDED for p in moment.processes)
    ended = plan.outcome is not None or moment.status.phase is JobPhase.SUSPENDED
    return ended and not alive and not plan.starts and moment.trouble is None


def remembered(state: dict[str, Any]) -> Memory:
    """The core's memory in a run's state; a new one for a run that has none."""
    return Memory.from_json(json.dumps(state["memory"])) if "memory" in state else Memory()


def outcome(state: dict[str, Any]) -> Outcome | None:
    """How the run ended, None while it has not."""
    return remembered(state).outcome
