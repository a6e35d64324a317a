"""A world in virtual time: machines, processes and a training run that behave as real ones do.

Processes wait for room, take time to start and to join, train together step by step with a checkpoint every
few steps, lose what was not saved when one of them vanishes, save when they get a notice, and end. Nothing
here knows the core's rules. Not here: what happens when (history.py), the operator over it (operator.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
from aurl_operator.core.plan import Start
from aurl_trainer.contract import NOTICES, Cause, ExitCode, Noted, Phase, Progress, Termination


@dataclass(frozen=True)
class Pace:
    """How long things take, seconds, and how much there is to do."""

    start: float = 2.0
    """From a start to running."""
    join: float = 3.0
    """From running to ready."""
    form: float = 5.0
    """From a change of members to the next world."""
    step: float = 1.0
    save: float = 0.5
    """From a notice to having left."""
    steps: int = 50
    every: int = 10
    """Steps between checkpoints."""


@dataclass
class Simulated:
    """One process."""

    start: Start
    uid: str
    created: float
    state: State = State.WAITING
    since: float | None = None
    notice: Notice | None = None
    stopping_since: float | None = None
    leave_at: float | None = None
    """When a notice to its agent has been followed."""
    kill_at: float | None = None
    """When SIGKILL follows."""
    end: End | None = None
    stubborn: bool = False
    """Does not follow notices: frozen."""

    @property
    def living(self) -> bool:
        """Whether it has not ended."""
        return self.end is None


@dataclass
class World:
    """All machines and processes of one job. Times are seconds of virtual time."""

    pace: Pace = field(default_factory=Pace)
    now: float = 1_000_000.0
    capacity: int = 8
    """Processes that may run at once; the others wait as unschedulable."""
    refuses: bool = False
    """Starts are refused (quota)."""
    procs_per_node: int = 1
    processes: dict[str, Simulated] = field(default_factory=dict)
    """By UID; removed ones are gone."""
    refusals: dict[tuple[Role, int], Refusal] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    """Names of all processes ever started."""
    ended: dict[str, End] = field(default_factory=dict)
    """By UID, of all processes that ever ended, seen or not."""
    generation: int = 0
    members: tuple[str, ...] = ()
    step: int = 0
    durable: int = 0
    resumed_from: int | None = None
    productive: float = 0.0
    productive_at: dict[int, float] = field(default_factory=dict)
    forming_at: float | None = None
    next_step_at: float | None = None
    frozen: bool = False
    """The whole world stands still though its processes live."""
    noted: list[Noted] = field(default_factory=list)
    """What ranks noticed; progress tells the newest, whatever world has formed since."""

    # -- what the operator does ------------------------------------------------------------------

    def begin(self, start: Start) -> None:
        """Starts a process, or refuses to. A name that exists already is left as it is."""
        if any(p.start.name == start.name for p in self.processes.values()):
            return
        if self.refuses:
            waiting = Waiting(WaitingReason.QUOTA, "exceeded quota: pods")
            self.refusals[start.role, start.index] = Refusal(
                start.role, start.index, start.attempt, waiting, self.now
            )
            return
        self.refusals.pop((start.role, start.index), None)
        uid = f"uid-{len(self.started)}"
        self.started.append(start.name)
        self.processes[uid] = Simulated(start, uid, self.now)

    def notify(self, uid: str, grace: float) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds."""
        process = self.processes.get(uid)
        if process is None or not process.living or process.stopping_since is not None:
            return
        process.stopping_since = self.now
        process.kill_at = self.now + grace
        if not process.stubborn:
            process.leave_at = self.now + self.pace.save

    def kill(self, uid: str) -> None:
        """SIGKILL by the operator."""
        if uid in self.processes:
            self.finish(uid, End(self.now, signal=9))

    def remove(self, uid: str) -> None:
        """Forgets an ended process."""
        process = self.processes.get(uid)
        if process is not None and not process.living:
            del self.processes[uid]

    # -- what happens ----------------------------------------------------------------------------

    def finish(self, uid: str, end: End) -> None:
        """Ends a process."""
        process = self.processes.get(uid)
        if process is None or not process.living:
            return
        process.end = end
        process.state = State.ENDED
        self.ended[uid] = end
        met_there = any(self.processes[m].start.store == _address(process) for m in self.members)
        if uid in self.members or (process.start.role is Role.STORE and (met_there or not self.members)):
            self._break_up()

    def vanish(self, uid: str) -> None:
        """A process ends and nothing of it remains."""
        self.finish(uid, End(self.now, deleted=True))
        self.processes.pop(uid, None)

    def announce(self, uid: str, seconds: float) -> None:
        """A spot notice: the machine goes in `seconds`."""
        process = self.processes.get(uid)
        if process is not None and process.living and process.notice is None:
            process.notice = Notice(self.now, "spot instance reclaimed", self.now + seconds)

    def of(self, role: Role) -> list[Simulated]:
        """Living processes of a role, lowest index first."""
        found = [p for p in self.processes.values() if p.living and p.start.role is role]
        return sorted(found, key=lambda p: (p.start.index, p.start.attempt))

    def notice(self, cause: Cause) -> None:
        """Rank 0 notices something that ends nobody; without a world there is nobody to notice it."""
        if self.members:
            about = f"step-{self.durable}"
            text = f"{cause.value}: {about}"
            self.noted.append(
                Noted(f"{cause.value}/{len(self.noted)}", cause, self.now, text, self.step, about)
            )

    def advance(self, until: float) -> None:
        """Lets virtual time run up to `until`."""
        while True:
            due = self._next()
            if due is None or due > until:
                break
            self.now = max(self.now, due)
            self._happen()
        self.now = max(self.now, until)

    # -- what is seen ----------------------------------------------------------------------------

    def look(self) -> tuple[tuple[Process, ...], Progress | None, tuple[Refusal, ...]]:
        """What a backend would observe now."""
        return (
            tuple(self._seen(p) for p in self.processes.values()),
            self._progress(),
            tuple(self.refusals.values()),
        )

    def _seen(self, p: Simulated) -> Process:
        waiting = None
        if p.state is State.WAITING:
            full = self._running() >= self.capacity
            reason = WaitingReason.UNSCHEDULABLE if full else WaitingReason.STARTING
            waiting = Waiting(reason, "0/4 nodes are available" if full else "")
        return Process(
            role=p.start.role,
            uid=p.uid,
            name=p.start.name,
            index=p.start.index,
            attempt=p.start.attempt,
            round=p.start.round,
            state=p.state,
            ready=self._ready(p),
            since=p.since,
            waiting=waiting,
            notice=p.notice,
            stopping_since=p.stopping_since if p.living else None,
            address=_address(p) if p.start.role is Role.STORE and p.state is State.RUNNING else None,
            end=p.end,
        )

    def _progress(self) -> Progress | None:
        if not self.members or self.generation == 0:
            return None
        return Progress(
            rank=0,
            world=len(self.members) * self.procs_per_node,
            generation=self.generation,
            phase=Phase.STEP,
            step=self.step,
            total_steps=self.pace.steps,
            at=self.now,
            loss=1.0,
            productive_seconds=self.productive,
            resumed_from=self.resumed_from,
            last_durable_step=self.durable or None,
            last_durable_name=f"step-{self.durable}" if self.durable else None,
            noted=self.noted[-NOTICES:],
        )

    # -- how it goes on --------------------------------------------------------------------------

    def _running(self) -> int:
        return sum(1 for p in self.processes.values() if p.state is State.RUNNING)

    def _ready(self, p: Simulated) -> bool:
        return (
            p.state is State.RUNNING
            and p.since is not None
            and self.now >= p.since + (self.pace.join if p.start.role is Role.NODE else 0.0)
        )

    def _next(self) -> float | None:
        times: list[float] = []
        room = self._running() < self.capacity
        for p in self.processes.values():
            if p.state is State.WAITING and room:
                times.append(max(self.now, p.created + self.pace.start))
            if p.living:
                times += [t for t in (self._leaves_at(p), p.kill_at) if t is not None]
            if p.notice is not None and p.living and p.notice.deadline is not None:
                times.append(p.notice.deadline)
            if p.state is State.RUNNING and p.since is not None and p.start.role is not Role.STORE:
                ready_at = p.since + self.pace.join
                if ready_at > self.now:
                    times.append(ready_at)
        if not self.frozen:
            times += [t for t in (self.forming_at, self.next_step_at) if t is not None]
        return min(times, default=None)

    def _happen(self) -> None:
        for p in list(self.processes.values()):
            begun = p.state is State.WAITING and self.now >= p.created + self.pace.start
            if begun and self._running() < self.capacity:
                p.state, p.since = State.RUNNING, self.now
            deadline = p.notice.deadline if p.notice else None
            if p.living and deadline is not None and self.now >= deadline:
                self.finish(p.uid, End(self.now, signal=9))
            cleaned = p.start.role is Role.CLEANER and p.since is not None
            if p.living and cleaned and self.now >= (p.since or 0.0) + self.pace.join:
                self.finish(p.uid, End(self.now, exit_code=0))
            leave_at = self._leaves_at(p)
            if p.living and leave_at is not None and self.now >= leave_at:
                self._leave(p)
            if p.living and p.kill_at is not None and self.now >= p.kill_at:
                self.finish(p.uid, End(self.now, signal=9))
        if self.frozen:
            return
        if self.next_step_at is not None and self.now >= self.next_step_at:
            self._step()
        if self.forming_at is not None and self.now >= self.forming_at:
            self._form()
        if self.forming_at is None and not self._settled():
            self.forming_at = self.now + self.pace.form

    def _leaves_at(self, p: Simulated) -> float | None:
        """When it follows its notice: a store not before the nodes that are connected to it."""
        nodes = self.of(Role.NODE) if p.start.role is Role.STORE else []
        connected = any(n.state is State.RUNNING and n.start.store == _address(p) for n in nodes)
        return None if connected else p.leave_at

    def _leave(self, p: Simulated) -> None:
        """A node that got a notice: all save together, then it goes. A store goes."""
        if p.start.role is Role.STORE:
            self.finish(p.uid, End(self.now, exit_code=0, deleted=True, disrupted=p.notice is not None))
            return
        if p.uid in self.members and not self.frozen:
            self._save()
        record = Termination(
            cause=Cause.PREEMPTED, message="left on a notice", exit_code=ExitCode.PREEMPTED, at=self.now
        )
        self.finish(p.uid, End(self.now, exit_code=ExitCode.PREEMPTED, termination=record))

    def _candidates(self) -> Sequence[Simulated]:
        """Nodes that can meet: ready, of the newest round that has enough of them."""
        nodes = [p for p in self.of(Role.NODE) if self._ready(p) and not p.stubborn]
        if not nodes:
            return ()
        newest = max(p.start.round for p in nodes)
        group = [p for p in nodes if p.start.round == newest]
        first = group[0].start
        if first.nodes_max > 1:
            stores = {_address(p) for p in self.of(Role.STORE)}
            group = [p for p in group if p.start.store in stores]
        # Agents that joined first stay; more than the maximum wait outside.
        group.sort(key=lambda p: (p.uid not in self.members, p.start.index))
        return group[: first.nodes_max] if len(group) >= first.nodes_min else ()

    def _settled(self) -> bool:
        return {p.uid for p in self._candidates()} == set(self.members)

    def _form(self) -> None:
        self.forming_at = None
        if self._settled():
            return
        if self.members:
            self._save()
        self.members = tuple(p.uid for p in self._candidates())
        self.next_step_at = None
        if not self.members:
            return
        self.generation += 1
        self.step = self.durable
        self.productive = self.productive_at.get(self.durable, 0.0)
        self.resumed_from = self.durable or None
        self.next_step_at = self.now + self.pace.step

    def _step(self) -> None:
        if self.step < self.pace.steps:
            self.step += 1
            self.productive += self.pace.step
        self.next_step_at = self.now + self.pace.step
        if self.step % self.pace.every == 0 or self.step >= self.pace.steps:
            self._save()
        if self.step >= self.pace.steps:
            self.next_step_at = None
            for uid in self.members:
                process = self.processes[uid]
                well = Termination(
                    cause=Cause.SUCCEEDED,
                    message="all ranks ended well",
                    exit_code=ExitCode.OK,
                    at=self.now,
                    durable_step=self.durable,
                    durable_name=f"step-{self.durable}",
                )
                process.end, process.state = End(self.now, exit_code=0, termination=well), State.ENDED
                self.ended[uid] = process.end
            self.members = ()

    def _save(self) -> None:
        self.durable = max(self.durable, self.step)
        self.productive_at[self.durable] = self.productive

    def _break_up(self) -> None:
        """A member or the store is gone: what was not saved is lost."""
        self.members = ()
        self.next_step_at = None
        self.frozen = False
        self.forming_at = self.now + self.pace.form


def _address(store: Simulated) -> str:
    return f"{store.uid}:29400"
