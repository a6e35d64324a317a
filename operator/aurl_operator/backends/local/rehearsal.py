"""Losses on purpose: events that strike a run's own processes when its progress reaches them.

Here: what an event is, how it is written (`worker-1@step:40`), when it strikes and what it does. Not here:
how the run comes back, which is the core's business as after any loss, nor the table at the end
(`commands/rehearse.py`).
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from aurl_operator.backends.local.nodes import LocalNodes
from aurl_operator.backends.local.supervisor import Moment
from aurl_operator.errors import UsageError

_FORM = re.compile(
    r"^(?P<target>store|worker-\d+)(?:/(?P<rank>\d+))?@(?P<trigger>step:\d+|time:\d+(?:\.\d+)?s?)$"
)


class Kind(StrEnum):
    """What is done to a process."""

    KILL = "kill"
    """SIGKILL to the node's agent and all it started: the machine is gone."""
    PREEMPT = "preempt"
    """SIGTERM to the agent, SIGKILL when its grace period is over: a spot machine is taken back."""
    FREEZE = "freeze"
    """SIGSTOP to the agent and all it started: the machine is there and does nothing."""
    KILL_RANK = "kill-rank"
    """SIGKILL to one training process, by its local rank."""


@dataclass(frozen=True)
class Event:
    """One loss. It strikes at the first look at which `step` is done or `seconds` have passed, and the
    target runs."""

    kind: Kind
    target: str
    step: int | None = None
    seconds: float | None = None
    rank: int | None = None

    @classmethod
    def parse(cls, kind: Kind, text: str) -> Event:
        """The event in `text`, as in `worker-1@step:40`, `worker-0/0@step:10`, `store@time:30s`.

        Raises UsageError.
        """
        found = _FORM.match(text)
        if found is None:
            raise UsageError(
                f"--{kind} {text}: expected TARGET@step:N or TARGET@time:SECONDSs, as in worker-1@step:40"
            )
        needs_rank = kind is Kind.KILL_RANK
        if needs_rank != (found["rank"] is not None):
            form = "worker-0/1@step:40 (node/local rank)" if needs_rank else "worker-1@step:40"
            raise UsageError(f"--{kind} {text}: expected a target as in {form}")
        if found["target"] == "store" and kind is not Kind.KILL:
            raise UsageError(f"--{kind} {text}: the store can only be killed")
        trigger, value = found["trigger"].split(":")
        return cls(
            kind=kind,
            target=found["target"],
            step=int(value) if trigger == "step" else None,
            seconds=float(value.rstrip("s")) if trigger == "time" else None,
            rank=int(found["rank"]) if needs_rank else None,
        )

    def __str__(self) -> str:
        where = self.target if self.rank is None else f"{self.target}/{self.rank}"
        when = f"step:{self.step}" if self.step is not None else f"time:{self.seconds:g}s"
        return f"--{self.kind} {where}@{when}"

    def is_due(self, moment: Moment, started: float) -> bool:
        """Whether the run has reached the event."""
        if self.seconds is not None:
            return moment.now - started >= self.seconds
        return moment.progress is not None and self.step is not None and moment.progress.step >= self.step


@dataclass(frozen=True)
class Strike:
    """An event that has happened: when, to which process, after which step."""

    event: Event
    at: float
    uid: str
    name: str
    step: int | None


class Rehearsal:
    """A watcher that strikes. `strikes` holds what has happened, `open` what has not."""

    def __init__(self, events: Sequence[Event], nodes: LocalNodes, say: Callable[[str], None]) -> None:
        """`say` is told of each strike."""
        self.open = list(events)
        self.strikes: list[Strike] = []
        self._nodes = nodes
        self._say = say
        self._started: float | None = None

    def __call__(self, moment: Moment) -> None:
        """Strikes with whatever is due and finds its target."""
        self._started = self._started or moment.now
        for event in [e for e in self.open if e.is_due(moment, self._started or 0.0)]:
            process = self._nodes.find(event.target)
            if process is not None and self._strike(event, process.uid, moment):
                step = moment.progress.step if moment.progress else None
                self._say(f"rehearsal: {event} strikes {process.name}")
                self.open.remove(event)
                self.strikes.append(Strike(event, moment.now, process.uid, process.name, step))

    def _strike(self, event: Event, uid: str, moment: Moment) -> bool:
        """Does it. Returns whether there was something to do it to."""
        if event.kind is Kind.KILL:
            self._nodes.kill(uid)
        elif event.kind is Kind.FREEZE:
            self._nodes.freeze(uid)
        elif event.kind is Kind.PREEMPT:
            self._nodes.notice(uid, moment.now, f"rehearsed: {event}")
        elif event.rank is not None:
            return self._nodes.signal_rank(uid, event.rank, signal.SIGKILL)
        return True
