"""Who was there when: attempts of each node, generations, and incidents with what they cost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from aurl_trainer.contract import NOTICED, LedgerEntry
from aurl_trainer.monitor.report.lineage import Generation
from aurl_trainer.monitor.report.source import Run

T = TypeVar("T")

_ATTEMPT = re.compile(r"([a-z]+-\d+)-(\d+)")


@dataclass(frozen=True)
class Attempt:
    """One pod or agent process of a node, or of the rendezvous store, which trains nothing.

    `end` None: not seen to end; `cause` None: still there. `ready` is when its ranks first wrote a record.
    Seconds since the epoch throughout.
    """

    node: str
    number: int
    start: float
    end: float | None = None
    cause: str | None = None
    message: str = ""
    ready: float | None = None

    @property
    def trains(self) -> bool:
        """Whether it is a node."""
        return not self.node.startswith("store-")


@dataclass(frozen=True)
class Incident:
    """Something that cost time, or that ranks noticed. No `recovered_at`: no new step has been seen since."""

    id: str
    at: float
    cause: str
    nodes: tuple[str, ...]
    message: str = ""
    step: int | None = None
    traceback: str | None = None
    recovered_at: float | None = None
    recovery_seconds: float | None = None
    lost_seconds: float | None = None
    steps_redone: int | None = None

    @property
    def noticed(self) -> bool:
        """Whether it ended no node and there was nothing to recover from."""
        return self.cause in NOTICED


def incidents(run: Run) -> tuple[Incident, ...]:
    """The ledger's incidents with their recoveries, and what only records tell of; oldest first."""
    found = {
        f"noted/{r['id']}": Incident(
            id=f"noted/{r['id']}",
            at=r["at"],
            cause=str(r["cause"]),
            nodes=(),
            message=str(r["message"]),
            step=r.get("step"),
        )
        for r in run.of("noted")
    }
    found |= _booked_incidents(run.ledger)
    return tuple(sorted(found.values(), key=lambda i: i.at))


def _booked_incidents(ledger: Iterable[LedgerEntry]) -> dict[str, Incident]:
    found: dict[str, Incident] = {}
    for entry in ledger:
        if entry.kind == "incident":
            found[entry.id] = Incident(
                id=entry.id,
                at=entry.at,
                cause=entry.cause or "unknown",
                nodes=tuple(split(n)[0] for n in entry.nodes),
                message=entry.message,
                step=entry.step,
                traceback=entry.traceback,
                lost_seconds=entry.lost_seconds,
                steps_redone=entry.steps_redone,
            )
        elif entry.kind == "recovered" and entry.id in found:
            old = found[entry.id]
            found[entry.id] = replace(
                old,
                recovered_at=entry.at,
                recovery_seconds=_first(entry.recovery_seconds, entry.at - old.at),
                lost_seconds=_first(entry.lost_seconds, old.lost_seconds),
                steps_redone=_first(entry.steps_redone, old.steps_redone),
            )
    return found


def attempts(run: Run, lineage: Sequence[Generation]) -> tuple[Attempt, ...]:
    """Each node's attempts, by node and start: as the ledger booked them, else as records show them."""
    booked = _booked(run.ledger)
    found = booked or _recorded(lineage)
    firsts = sorted((r["at"], str(r.get("node"))) for r in run.of("start"))
    numbered: dict[str, int] = {}
    result: list[Attempt] = []
    for attempt in sorted(found, key=lambda a: (not a.trains, _order(a.node), a.start)):
        number = numbered.get(attempt.node, 0)
        numbered[attempt.node] = number + 1
        end = attempt.end if attempt.end is not None else float("inf")
        ready = next(
            (at for at, node in firsts if split(node)[0] == attempt.node and attempt.start <= at <= end), None
        )
        result.append(replace(attempt, number=number, ready=ready))
    return tuple(result)


def _booked(ledger: Iterable[LedgerEntry]) -> list[Attempt]:
    """Attempts from entries of kind `node`: the first of a UID starts it, one with a cause ends it."""
    by_uid: dict[str, Attempt] = {}
    for entry in ledger:
        if entry.kind != "node":
            continue
        for name, uid in zip(entry.nodes, entry.uids or entry.nodes, strict=False):
            known = by_uid.get(uid) or Attempt(split(name)[0], split(name)[1], start=entry.at)
            if entry.cause is not None and known.end is None:
                known = replace(known, end=entry.at, cause=entry.cause, message=entry.message)
            by_uid[uid] = known
    return list(by_uid.values())


def _recorded(lineage: Sequence[Generation]) -> list[Attempt]:
    """One bar for each node and stretch of generations that it took part in."""
    found: dict[str, list[Attempt]] = {}
    for generation in lineage:
        for name in generation.nodes:
            bars = found.setdefault(split(name)[0], [])
            if bars and bars[-1].message == name:
                bars[-1] = replace(bars[-1], end=generation.until)
            else:
                bars.append(Attempt(split(name)[0], 0, generation.at, generation.until, message=name))
    return [replace(bar, message="") for bars in found.values() for bar in bars]


def split(name: str) -> tuple[str, int]:
    """Node and attempt of a process's name: `worker-1-2` is attempt 2 of `worker-1`."""
    match = _ATTEMPT.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, 0)


def _order(node: str) -> tuple[str, int]:
    head, _, tail = node.rpartition("-")
    return (head, int(tail)) if tail.isdigit() else (node, -1)


def _first(*values: T | None) -> T | None:
    return next((v for v in values if v is not None), None)
