"""Histories: what happens to a run and when, written down, read back and played in virtual time.

A history is a list of events at seconds since the first look, invented by a test or taken from the ledger of
a real run (`recorded`). Not here: what the events do to training (world.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.backends.simulated.operator import Operator
from aurl_operator.backends.simulated.world import Pace, World
from aurl_operator.core.memory import Memory
from aurl_operator.core.observed import CLUSTER, Capabilities, End, Role
from aurl_trainer.contract import NOTICED, Cause, ExitCode, LedgerEntry, Termination

Kind = Literal[
    "kill",
    "evict",
    "delete",
    "vanish",
    "notice",
    "preempt",
    "crash",
    "oom",
    "hang",
    "final",
    "kill-store",
    "notice-store",
    "drain-store",
    "capacity",
    "refuse",
    "accept",
    "freeze",
    "damage",
    "save-fails",
    "differs",
    "suspend",
    "resume",
    "delete-job",
    "operator-dies",
]


@dataclass(frozen=True)
class Event:
    """Something that happens `at` seconds after the beginning.

    `index` is the node it happens to (of those living; nothing happens if there is none); `value` the new
    capacity, the seconds of a notice, or how many side effects an operator has left to live.
    """

    at: float
    kind: Kind
    index: int = 0
    value: float = 0.0


def happen(operator: Operator, event: Event) -> None:
    """Makes an event happen now."""
    world = operator.world
    now = world.now
    match event.kind:
        case "capacity":
            world.capacity = int(event.value)
        case "refuse" | "accept":
            world.refuses = event.kind == "refuse"
        case "freeze":
            world.frozen = bool(world.members)
            for uid in world.members:
                world.processes[uid].stubborn = True
        case "damage":
            world.notice(Cause.CHECKPOINT_DAMAGED)
        case "save-fails":
            world.notice(Cause.SAVE_FAILED)
        case "differs":
            world.notice(Cause.RESUME_MISMATCH)
        case "suspend" | "resume":
            operator.suspended = event.kind == "suspend"
        case "delete-job":
            operator.deleting = True
        case "operator-dies":
            operator.die_at = operator.deeds + int(event.value)
        case "kill-store":
            for store in world.of(Role.STORE):
                world.finish(store.uid, End(now, signal=9))
        case "notice-store":
            for store in world.of(Role.STORE):
                world.announce(store.uid, event.value)
        case "drain-store":
            for store in world.of(Role.STORE):
                world.notify(store.uid, event.value)
        case _:
            _to_node(world, event, now)


def _to_node(world: World, event: Event, now: float) -> None:
    node = next((p for p in world.of(Role.NODE) if p.start.index == event.index), None)
    if node is None:
        return
    uid = node.uid
    match event.kind:
        case "kill":
            world.finish(uid, End(now, signal=9))
        case "evict":
            world.finish(uid, End(now, exit_code=137, disrupted=True, message="evicted"))
        case "delete":
            world.finish(uid, End(now, exit_code=ExitCode.PREEMPTED, deleted=True))
        case "vanish":
            world.vanish(uid)
        case "notice":
            world.announce(uid, event.value)
        case "preempt":
            world.notify(uid, 30.0)
        case "crash" | "oom" | "hang" | "final":
            world.finish(uid, _failure(event.kind, now, world.step))


def _failure(kind: Kind, now: float, step: int) -> End:
    cause, code, message = {
        "crash": (Cause.CRASH, ExitCode.CRASH, "ZeroDivisionError: division by zero"),
        "oom": (Cause.OUT_OF_MEMORY, ExitCode.OUT_OF_MEMORY, "memory was exhausted"),
        "hang": (Cause.HANG, ExitCode.HANG, "rank 0 did not arrive"),
        "final": (Cause.FINAL_ERROR, ExitCode.FINAL, "model.dim: is not what the checkpoint has"),
    }[kind]
    record = Termination(cause=cause, message=message, exit_code=code, at=now, rank=0, step=step)
    return End(now, exit_code=code, termination=record)


def play(
    job: AurlTrainingJob,
    events: Iterable[Event],
    *,
    pace: Pace | None = None,
    capacity: int = 8,
    capabilities: Capabilities = CLUSTER,
    poll: float = 1.0,
    limit: float = 100_000.0,
) -> Operator:
    """Plays a history until the job has ended and nothing lives, or for `limit` seconds of virtual time."""
    world = World(pace=pace or Pace(), capacity=capacity, procs_per_node=job.spec.procs_per_node)
    operator = Operator(world, job, capabilities)
    begin = world.now
    left = sorted(events, key=lambda e: e.at)
    while world.now - begin < limit:
        while left and begin + left[0].at <= world.now:
            happen(operator, left.pop(0))
        plan = operator.look()
        if settled(operator) and not left:
            break
        wake = poll if plan.wake_after is None else plan.wake_after
        busy = any(p.living for p in world.processes.values()) or operator.memory.starting
        world.advance(world.now + max(0.01, min(wake, poll) if busy else wake))
    return operator


def settled(operator: Operator) -> bool:
    """Whether nothing will happen any more by itself."""
    memory: Memory = operator.memory
    living = any(p.living for p in operator.world.processes.values())
    if operator.deleting:
        return operator.released
    return not living and not memory.starting and memory.outcome is not None


def recorded(ledger: Sequence[LedgerEntry], began: float) -> list[Event]:
    """The losses and notices in a run's ledger as events, so that a real history can be played again.

    Incidents of several nodes become one event for each. `began` is when the run was first looked at.
    """
    kinds: dict[str, Kind] = {
        Cause.PREEMPTED: "preempt",
        Cause.DELETED: "delete",
        Cause.NODE_LOST: "kill",
        Cause.OUT_OF_MEMORY: "oom",
        Cause.CRASH: "crash",
        Cause.HANG: "hang",
        Cause.STORE_LOST: "kill-store",
        Cause.FINAL_ERROR: "final",
        Cause.CHECKPOINT_DAMAGED: "damage",
        Cause.SAVE_FAILED: "save-fails",
        Cause.RESUME_MISMATCH: "differs",
    }
    events: list[Event] = []
    for entry in ledger:
        if entry.kind != "incident" or entry.cause not in kinds:
            continue
        if entry.cause in NOTICED:
            events.append(Event(entry.at - began, kinds[entry.cause]))
        for name in entry.nodes:
            role, index, _ = name.rsplit("-", 2)
            kind: Kind = "kill-store" if role == "store" else kinds[entry.cause]
            events.append(Event(entry.at - began, kind, int(index)))
    return events
