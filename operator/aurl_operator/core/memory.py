"""What the core remembers between two looks at the world: one value, with a JSON round trip.

A backend keeps it and understands nothing of it: `memory.to_json()` goes to `state.json` locally and into
the object's status on a cluster, `Memory.from_json` brings it back, a run that starts has `Memory()`.
Order matters; see plan.py. Not here: what is decided from it (reconcile.py, policies/).

All times are seconds since the epoch, of the clock that fills `Observed.now`.
"""

from __future__ import annotations

import binascii
import functools
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from aurl_operator.api.status import Condition, JobPhase
from aurl_operator.core.observed import Role
from aurl_trainer.contract import Cause, LedgerEntry

VERSION = 1
"""Raised when a field is taken away, changes its meaning, or is added to a record inside. A new field of
`Memory` itself is kept by an operator that does not know it yet."""

PACKED_VERSION = 2
"""Of a large memory of version 1: `packed` holds its JSON, compressed. The version after 1 is 3."""

PACK_CHARACTERS = 65_536
"""A longer memory is packed: UIDs and names of a thousand nodes shrink to a third."""

_UNPACKED_BYTES = 2**24


class MemoryFormatError(ValueError):
    """The text is not a memory that this version reads; it was left as it is."""


class NewerMemoryError(MemoryFormatError):
    """A newer version wrote it: nothing is wrong with it, and nobody must write over it."""


@dataclass(frozen=True)
class Live:
    """A process that was seen and has not ended."""

    role: Role
    name: str
    index: int
    attempt: int
    round: int
    since: float


@dataclass(frozen=True)
class Intent:
    """A start that was ordered and has not been seen yet."""

    role: Role
    name: str
    index: int
    attempt: int
    round: int
    since: float


@dataclass(frozen=True)
class Stop:
    """A stop that was ordered: the end of this process is ours and no incident."""

    since: float
    reason: str
    grace_seconds: float


@dataclass(frozen=True)
class Tally:
    """Incidents charged to one budget."""

    total: int = 0
    """Over the whole run."""
    streak: int = 0
    """Since the last new durable step: what backoff counts, and the limit if the budget refills."""
    until: float = 0.0
    """No node is started before."""


@dataclass(frozen=True)
class Incident:
    """One loss, of one process or of several together; or something noticed that ended none."""

    id: str
    cause: Cause
    at: float
    nodes: tuple[str, ...]
    uids: tuple[str, ...]
    message: str = ""
    traceback: str | None = None
    generation: int | None = None
    """Newest generation known when it happened."""
    furthest: int | None = None
    """Last step known to be finished before it."""
    asleep: float = 0.0
    """Seconds the job had been suspended until then: suspension is nobody's loss."""
    recovery_seconds: float | None = None
    steps_redone: int | None = None
    lost_seconds: float | None = None
    over: bool = False
    """A new step was made after it, or the job ended."""


@dataclass(frozen=True)
class Advance:
    """The last change of progress that was seen."""

    generation: int
    phase: str
    step: int
    at: float


@dataclass(frozen=True)
class Outcome:
    """How the job ended. `reason` is one word, `exit_code` what `aurl run` exits with."""

    phase: JobPhase
    reason: str
    message: str
    exit_code: int
    at: float


@dataclass(frozen=True)
class Memory:
    """Everything the core needs to know beside what can be seen."""

    version: int = VERSION
    live: Mapping[str, Live] = field(default_factory=dict)
    """By UID."""
    starting: tuple[Intent, ...] = ()
    stopping: Mapping[str, Stop] = field(default_factory=dict)
    """By UID."""
    booked: Mapping[str, float] = field(default_factory=dict)
    """UIDs whose end is booked, with the time of the booking."""
    attempts: Mapping[str, int] = field(default_factory=dict)
    """Next attempt of each role and index, as in `node/1`."""
    round: int = 0
    """Number of the rendezvous: agents of different rounds never meet. 0: none yet."""
    nodes_min: int = 0
    """`--nnodes` of this round."""
    nodes_max: int = 0
    round_used: bool = False
    """Whether a node of this round was ordered: its rendezvous may hold something."""
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    """By budget: the field's name in `recovery`."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """Incidents by cause."""
    incidents: tuple[Incident, ...] = ()
    """Those still open and the last 20, oldest first."""
    unnamed: Mapping[str, int] = field(default_factory=dict)
    """By id of an incident: how many nodes it took beyond those that it names."""
    lost_seconds: Mapping[str, float] = field(default_factory=dict)
    """By cause, over all incidents that are over."""
    noted: tuple[str, ...] = ()
    """Ids of the notices of ranks that are booked, oldest first."""
    damaged: tuple[str, ...] = ()
    """Names of checkpoints that were found damaged, oldest first."""
    started_at: float | None = None
    first_ready_at: float | None = None
    """When the first node was ready, so that goodput = work / (now - this - all suspensions): earlier by
    what the job was suspended before, later by what it was suspended before it failed and was revived."""
    whole_since: float | None = None
    """Since when at least `nodes.min` are ready."""
    short_since: float | None = None
    """Since when fewer than `nodes.min` are ready although nothing holds their start back."""
    give_backs: int = 0
    """How often in a row the start timed out and everything was given back."""
    hold_until: float = 0.0
    """After a give-back: no start before."""
    finishing_since: float | None = None
    """When the first node of this round ended well."""
    finished: tuple[str, ...] = ()
    """UIDs of the nodes that ended well since then."""
    suspended_since: float | None = None
    suspended_seconds: float = 0.0
    advance: Advance | None = None
    progress_at: float = 0.0
    """`at` of the newest progress seen: older answers are passed over."""
    generation: int | None = None
    """Newest generation seen."""
    world: int | None = None
    """Ranks in it."""
    resumed_from: int | None = None
    furthest_step: int | None = None
    durable_step: int | None = None
    """The furthest that was ever durable: what refills budgets."""
    saved_step: int | None = None
    """What a restart would go on from; earlier than the furthest if that one was damaged."""
    saved_name: str | None = None
    productive_seconds: float = 0.0
    phase: JobPhase = JobPhase.PENDING
    phases: int = 0
    """How often the phase has changed."""
    resumed: str | None = None
    """The last token that asked for a failed job to try again."""
    cleaned: bool = False
    """The checkpoints of the deleted job are deleted."""
    let_go: bool = False
    """It was told that they stay."""
    conditions: tuple[Condition, ...] = ()
    outcome: Outcome | None = None
    outbox: tuple[LedgerEntry, ...] = ()
    """Ledger entries of the last reconcile: see plan.py for when they are written."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """What another operator of this version remembers and we do not know."""

    def to_json(self) -> str:
        """One line of JSON, packed if it is long."""
        values = _adapter().dump_python(self, mode="json", exclude_defaults=True, exclude={"others"})
        text = json.dumps({**self.others, **values, "version": self.version})
        return text if len(text) <= PACK_CHARACTERS else _packed(text)

    @classmethod
    def from_json(cls, text: str | bytes) -> Memory:
        """The memory in `text`. Raises MemoryFormatError."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise MemoryFormatError(f"memory is damaged: {error}") from None
        version = raw.get("version") if isinstance(raw, dict) else None
        if version == PACKED_VERSION and isinstance(raw.get("packed"), str):
            return cls.from_json(_unpacked(raw["packed"]))
        if isinstance(version, int) and version > VERSION:
            raise NewerMemoryError(f"memory version {version} was written by a newer Aurl; upgrade to go on")
        try:
            known = _adapter().validate_python(raw)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(p) for p in first["loc"])
            raise MemoryFormatError(f"memory is damaged: {place}: {first['msg']}") from None
        return replace(known, others={key: value for key, value in raw.items() if key not in _KNOWN})


def _packed(text: str) -> str:
    packed = binascii.b2a_base64(zlib.compress(text.encode(), 9), newline=False).decode()
    return json.dumps({"version": PACKED_VERSION, "packed": packed})


def _unpacked(packed: str) -> bytes:
    """The JSON in it. Raises MemoryFormatError, also for one of unlikely size."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(binascii.a2b_base64(packed), _UNPACKED_BYTES)
    except (ValueError, zlib.error) as error:
        raise MemoryFormatError(f"memory is damaged: packed: {error}") from None
    if not unpacker.eof:
        raise MemoryFormatError("memory is damaged: packed: it is cut off, or too large")
    return text


_KNOWN = frozenset(f.name for f in fields(Memory)) - {"others"}


@functools.cache
def _adapter() -> TypeAdapter[Memory]:
    return TypeAdapter(Memory)
