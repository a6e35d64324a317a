"""From what the cache knows of a job to what the core observes. No calls, no clock.

Not here: reading a pod (process.py, ending.py), and what is then done (controller.py).
"""

from __future__ import annotations

import dataclasses

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.cache import GAP_SECONDS, LOST_SECONDS, Cache, Entry
from aurl_operator.backends.kubernetes.observe.machine import Machine
from aurl_operator.backends.kubernetes.observe.process import Sight, process
from aurl_operator.backends.kubernetes.observe.waiting import pull_due
from aurl_operator.core.memory import Memory
from aurl_operator.core.observed import CLUSTER, End, Observed, Process, State


def observed(entry: Entry, cache: Cache, memory: Memory, now: float) -> Observed:
    """The job as it is now. Ends are noted in `entry`, and stay as they were seen first."""
    assert entry.parsed is not None
    metadata = entry.job["metadata"]
    found = [_process(entry, cache, memory, uid, now) for uid in entry.pods]
    # Refused, and there all the same: the answer to its creation was lost.
    there = {(p.role, p.index, p.attempt) for p in found if p is not None}
    return Observed(
        now=now,
        job=entry.parsed,
        run_id=entry.uid,
        memory=memory,
        processes=tuple(p for p in found if p is not None and not _over(entry, memory, p.uid)),
        progress=entry.progress,
        reached_since=entry.reached_since if now - entry.reached_at <= GAP_SECONDS else None,
        refusals=tuple(r for r in entry.refusals.values() if (r.role, r.index, r.attempt) not in there),
        deleting=metadata.get("deletionTimestamp") is not None,
        resume=(metadata.get("annotations") or {}).get(names.RESUME),
        capabilities=CLUSTER,
    )


def wakes(entry: Entry, cache: Cache, now: float) -> list[float]:
    """Times at which what is seen means something else, though nothing has changed."""
    found: list[float] = []
    for uid, pod in entry.pods.items():
        machine = cache.machines.get(pod.get("spec", {}).get("nodeName", ""))
        if uid not in entry.ends and machine is not None and machine.lost_at is not None:
            found.append(machine.lost_at + LOST_SECONDS)
        due = pull_due(pod)
        if pod.get("status", {}).get("phase") == "Pending" and due is not None:
            found.append(due)
    return [at for at in found if at > now]


def _process(entry: Entry, cache: Cache, memory: Memory, uid: str, now: float) -> Process | None:
    pod = entry.pods[uid]
    place = pod.get("spec", {}).get("nodeName")
    machine = _trusted(cache.machines.get(place), now) if place else None
    sight = Sight(
        now=now,
        machine=machine,
        machine_gone=bool(place) and cache.machine_gone(place),
        ours=uid in memory.stopping,
        vanished=entry.vanished.get(uid),
        mount=entry.mounts.get(uid, ""),
        ran_before=memory.first_ready_at is not None,
    )
    found = process(pod, sight)
    if found is None:
        return None
    known = entry.ends.get(uid)
    if known is not None and uid in memory.live:
        return _with_end(found, known)
    if found.end is not None and uid not in memory.booked:
        entry.ends[uid] = found.end
    return found


def _with_end(process: Process, end: End) -> Process:
    return dataclasses.replace(process, state=State.ENDED, end=end, waiting=None)


def _trusted(machine: Machine | None, now: float) -> Machine | None:
    """A machine that has been silent for a moment only is not lost yet."""
    if machine is None or machine.lost is None or machine.lost_at is None:
        return machine
    if now - machine.lost_at >= LOST_SECONDS:
        return machine
    return dataclasses.replace(machine, lost=None, lost_at=None)


def _over(entry: Entry, memory: Memory, uid: str) -> bool:
    """Booked, and nothing is left of it."""
    return uid in memory.booked and uid in entry.vanished
