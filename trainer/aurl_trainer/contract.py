"""What operator and trainer share: environment names, exit codes, and the records they exchange.

Here: names and plain records with their JSON form, versioned by `VERSION`. Not here: any behaviour; who
acts on a record (the operator's core, the agent, the training loop) lives in its own room.
Standard library only: the agent takes it along into images that have nothing else of ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

VERSION = 1
"""Version of every record here. A reader accepts its own version and older ones."""

TERMINATION_BYTES = 4096
"""What the kubelet keeps of a termination message, bytes."""

TRACEBACK_BYTES = 2048
"""What a record keeps of a traceback: its end, where the error is, bytes of its JSON form."""

MESSAGE_BYTES = 1024
"""What a record keeps of a message: its start, bytes of its JSON form."""

NOTICES = 8
"""What a progress record keeps of a run's notices: the newest."""


class Env(StrEnum):
    """Environment variables a node gets from whoever launched it."""

    JOB = "AURL_JOB"
    """Name of the job."""
    RUN_ID = "AURL_RUN_ID"
    """Identity of the run: the job object's UID, or the local run's id."""
    NODE = "AURL_NODE"
    """Name of this node without its attempt, as in `worker-1`."""
    NODE_UID = "AURL_NODE_UID"
    """Identity of this very pod or agent process; a replacement has another one."""
    NODE_INDEX = "AURL_NODE_INDEX"
    ATTEMPT = "AURL_ATTEMPT"
    """How many nodes of this index ended before this one."""
    TRAINED = "AURL_TRAINED"
    """`1` in a node started after any world of the job has trained: its checkpoint location has worked."""
    STORE = "AURL_STORE"
    """`host:port` of the store for rendezvous and beats; absent when the agent hosts its own."""
    EXPERIMENT = "AURL_EXPERIMENT"
    """The experiment as JSON: the job's `training` with presets resolved and `checkpoint` merged in."""
    RUN_DIR = "AURL_RUN_DIR"
    """Directory for records of this node's ranks; on one machine all nodes share it."""
    TERMINATION_LOG = "AURL_TERMINATION_LOG"
    """File that takes the termination record."""
    PROGRESS_PORT = "AURL_PROGRESS_PORT"
    """Port on which the node's local rank 0 answers `GET /progress`; absent: not served."""
    PROGRESS_HOST = "AURL_PROGRESS_HOST"
    """Address on which progress is served: 127.0.0.1 if absent; in a pod its own."""
    BARRED = "AURL_BARRED"
    """Comma list of node UIDs that were replaced: this node's agent bars them before it joins."""
    UPLOAD = "AURL_UPLOAD"
    """`1` in a pod: records and the tail of the log are kept beside the checkpoints."""
    PREPARE = "AURL_PREPARE"
    """JSON list: a command that prepares what ranks need, run before a node joins others that train."""
    ALIVE = "AURL_ALIVE"
    """Set by the agent for that command: a file whose time it sets as it gets on."""
    PRELOAD = "AURL_PRELOAD"
    """Comma list of modules that ranks import: the agent forks ranks from a process that has them."""
    GRACE_SECONDS = "AURL_GRACE_SECONDS"
    """Seconds between SIGTERM and SIGKILL."""
    HANG_LIMITS = "AURL_HANG_LIMITS"
    """JSON object: seconds without progress by phase, as in `{"step": 300, "evaluate": 1800}`."""
    PRESENCE = "AURL_PRESENCE"
    """Seconds between two signs of life beside the checkpoints; all runs at one place must agree on it."""
    PEER_TIMEOUT = "AURL_PEER_TIMEOUT"
    """Seconds without a beat after which a rank or an agent counts as missing; 10 if absent."""
    ROUND = "AURL_ROUND"
    """Set by the agent for its ranks: the round of the rendezvous that formed their world."""


RANK_MODULES = "aurl_trainer.commands.train,aurl_trainer.commands.rank,aurl_trainer.engine.survival.exits"
"""What the nodes of a training job preload."""


def rank_name(local_rank: int | str) -> str:
    """What the process of a rank that was forked is called, as /proc/PID/comm has it."""
    return f"rank-{local_rank}"


class ExitCode(IntEnum):
    """Exit codes of `aurl`, of agents and of ranks. docs/exit-codes.md is written from these lines."""

    OK = 0
    """Done. A rank may say so only at the end of the last step."""
    CRASH = 1
    """An unexpected error; with `aurl`, one of ours: please report it."""
    USAGE = 2
    """The command line was wrong."""
    INVALID_JOB = 3
    """The job or the experiment is not valid: the message names file, line and field."""
    DATA = 4
    """The training data cannot be used: nothing readable, or nothing left after the split."""
    CHECKPOINT = 5
    """The checkpoint location cannot be used, or no checkpoint there fits."""
    REFUSED = 6
    """Would harm something that exists, such as a run directory of another config."""
    MISSING = 7
    """A program, a package or a file that is needed is not there."""
    RUN_FAILED = 8
    """The run ended Failed: its status says why."""
    NOT_FINISHED = 9
    """The run was interrupted, saved, and can be continued by the same command."""
    NO_CAPACITY = 10
    """The world did not reach `nodes.min` in time."""
    REJOIN = 81
    """A rank leaves because the world changes: start it again in the next generation, charge nothing."""
    PREEMPTED = 82
    """Left after a preemption notice."""
    HANG = 83
    """This node's rank did not arrive within its phase's limit."""
    OUT_OF_MEMORY = 84
    """The kernel's or the device's memory was exhausted on this node."""
    STORE_LOST = 85
    """The store for rendezvous and beats cannot be reached any more."""
    FINAL = 86
    """An error that trying again cannot mend; the termination record says which."""
    INTERRUPTED = 130
    """Stopped at once by a second Ctrl-C."""


class Cause(StrEnum):
    """Why a node or a rank ended, or what a rank noticed. The operator's rules are keyed by these."""

    SUCCEEDED = "succeeded"
    PREEMPTED = "preempted"
    NODE_LOST = "node-lost"
    OUT_OF_MEMORY = "out-of-memory"
    CRASH = "crash"
    FINAL_ERROR = "final-error"
    HANG = "hang"
    STORE_LOST = "store-lost"
    DELETED = "deleted"
    """Deleted by somebody else, or gone unseen."""
    STOPPED = "stopped"
    """Stopped by us: scaled down, suspended, cleaned up."""
    CHECKPOINT_DAMAGED = "checkpoint-damaged"
    """A checkpoint is not what was written: it was passed over, or only copies on nodes have it whole."""
    SAVE_FAILED = "save-failed"
    """A checkpoint could not be saved; training goes on."""
    RESUME_MISMATCH = "resume-mismatch"
    """After a resume the run did not do again what it had done before."""


NOTICED: frozenset[Cause] = frozenset({Cause.CHECKPOINT_DAMAGED, Cause.SAVE_FAILED, Cause.RESUME_MISMATCH})
"""Causes of incidents that end no node: ranks notice them, nothing restarts and no budget is charged."""


class Phase(StrEnum):
    """What a rank is doing: each has its own limit before it counts as a hang."""

    START = "start"
    COMPILE = "compile"
    LOAD = "load"
    STEP = "step"
    SYNC = "sync"
    """Waiting for the others in the step's last reduction: a hung rank is one that is not here."""
    EVALUATE = "evaluate"
    SAVE = "save"
    END = "end"


DEFAULT_HANG_LIMITS: dict[Phase, float] = {
    Phase.START: 600.0,
    Phase.COMPILE: 1800.0,
    Phase.LOAD: 1800.0,
    Phase.STEP: 300.0,
    Phase.SYNC: 300.0,
    Phase.EVALUATE: 1800.0,
    Phase.SAVE: 1800.0,
    Phase.END: 600.0,
}
"""Seconds in one phase without a new step before a rank counts as hung."""


class RecordError(ValueError):
    """A record is not what its kind requires; the message says which field."""


_YEAR_10000 = 253_402_300_800
"""Seconds since the epoch: no calendar reads further."""


class _Record:
    """JSON form of the frozen dataclasses below: flat, versioned, unknown fields ignored on reading.

    A record may come from a stranger: types are checked when one is read. A number that is not finite is read
    as null.
    """

    def to_json(self) -> str:
        """One line of JSON with `v`, without fields that are None."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return json.dumps({"v": VERSION, **{k: v for k, v in values.items() if v is not None}})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The record in `text`. Raises RecordError for anything that is not one."""
        try:
            raw: Any = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{cls.__name__}: not JSON: {error}") from None
        if not isinstance(raw, dict):
            raise RecordError(f"{cls.__name__}: expected an object, found {type(raw).__name__}")
        if not isinstance(raw.get("v"), int) or raw["v"] > VERSION:
            raise RecordError(f"{cls.__name__}: version {raw.get('v')!r} is not one this Aurl reads")
        try:
            return cls.from_object(raw)
        except (TypeError, ValueError) as error:
            raise RecordError(f"{cls.__name__}: {error}") from None

    @classmethod
    def from_object(cls, raw: dict[str, Any]) -> Self:
        """The record with the fields of `raw`. Raises TypeError or ValueError if it is none."""
        kinds = _kinds(cls)  # type: ignore[arg-type]
        values = {name: _without_nulls(raw[name]) for name in kinds if name in raw}
        wrong = [name for name, value in values.items() if not _fits(value, kinds[name])]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: not of the type that is expected there")
        if not 0 <= values.get("at", 0) < _YEAR_10000:
            raise ValueError("at: expected seconds since the epoch")
        return cls(**values)


@functools.cache
def _kinds(record: type[_Record]) -> dict[str, Any]:
    """The types of a record's fields."""
    return get_type_hints(record)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _without_nulls(value: Any) -> Any:
    """Of figures by name, those that are there."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def _fits(value: Any, kind: Any) -> bool:
    """Whether `value`, read from JSON, is what a field of type `kind` takes."""
    of = get_origin(kind)
    if of is UnionType:
        return any(_fits(value, one) for one in get_args(kind))
    if of is list:
        return isinstance(value, list) and all(_fits(one, get_args(kind)[0]) for one in value)
    if of is dict:
        return (
            isinstance(value, dict)
            and all(_fits(part, str) for part in value)
            and all(_fits(part, get_args(kind)[1]) for part in value.values())
        )
    if kind in (int, float):
        whole = type(value) is int and abs(value) < 2**63
        return whole or (kind is float and type(value) is float)
    if kind is str:
        return isinstance(value, str) and _is_text(value)
    # Records within a record are read one by one, and left out if they are none.
    return dataclasses.is_dataclass(kind) or isinstance(value, kind)


def _is_text(value: str) -> bool:
    """Whether it can be passed on: a lone surrogate is good JSON, and cannot be written as UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Termination(_Record):
    """Why an agent ended: written to the termination log, at most `TERMINATION_BYTES`.

    `rank` is the first failing rank (None: the agent itself); `at` is seconds since the epoch. `exit_code` is
    that rank's own, as a job's rules mean it, or what its error asks `aurl run` to exit with (4: the data);
    without a rank it is the agent's. `durable_step` and `durable_name` are those of the newest checkpoint, as
    its ranks said when they ended well or left after a notice.
    """

    cause: str
    message: str
    exit_code: int
    at: float
    rank: int | None = None
    step: int | None = None
    traceback: str | None = None
    durable_step: int | None = None
    durable_name: str | None = None

    def __post_init__(self) -> None:
        Cause(self.cause)
        object.__setattr__(self, "message", _escaped_start(self.message, MESSAGE_BYTES))
        if self.traceback is not None:
            object.__setattr__(self, "traceback", _escaped_end(self.traceback, TRACEBACK_BYTES))


def _escaped_end(text: str, limit: int) -> str:
    """The longest end of `text` whose JSON form has at most `limit` bytes."""
    kept = 0
    for count, character in enumerate(reversed(text)):
        kept += len(json.dumps(character)) - 2
        if kept > limit:
            return text[len(text) - count :]
    return text


def _escaped_start(text: str, limit: int) -> str:
    """The longest start of `text` whose JSON form has at most `limit` bytes."""
    return _escaped_end(text[::-1], limit)[::-1]


@dataclass(frozen=True)
class Noted(_Record):
    """Something that a rank noticed, that ends no node and that the operator books as an incident.

    `id` is unique in the run, and the same whenever the same thing is told again: it is booked once. `at` is
    seconds since the epoch, `checkpoint` the name of the one that it is about.
    """

    id: str
    cause: str
    at: float
    message: str
    step: int | None = None
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        if Cause(self.cause) not in NOTICED:
            raise ValueError(f"cause: {self.cause!r} ends nodes, it is not noticed")
        object.__setattr__(self, "id", _escaped_start(self.id, 256))
        object.__setattr__(self, "message", _escaped_start(self.message, MESSAGE_BYTES))


@dataclass(frozen=True)
class Progress(_Record):
    """What `GET /progress` of a node answers. Only the one with `rank` 0 counts.

    `step` counts finished optimizer steps. `productive_seconds` is the time of the steps that are in the
    result: it is saved with the checkpoint, so steps done twice count once. Seconds throughout. `noted` holds
    the newest `NOTICES`; those that this version cannot read are left out, the rest of the record counts. A
    loss that is not finite, as a run in half precision may have for a step, is None.
    """

    rank: int
    world: int
    generation: int
    phase: str
    step: int
    total_steps: int
    at: float
    loss: float | None = None
    val_loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    productive_seconds: float = 0.0
    resumed_from: int | None = None
    last_durable_step: int | None = None
    last_durable_name: str | None = None
    """Name of the checkpoint of that step."""
    music: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    noted: list[Noted] = field(default_factory=list)
    alive_at: float | None = None
    """When the rank last did a part of what it does, such as a micro-batch: seconds since the epoch."""

    def __post_init__(self) -> None:
        Phase(self.phase)
        object.__setattr__(self, "noted", _readable(self.noted)[-NOTICES:])
        for name in ("loss", "val_loss", "learning_rate", "tokens_per_second", "eta_seconds"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                object.__setattr__(self, name, None)
        music = {name: value for name, value in self.music.items() if math.isfinite(value)}
        object.__setattr__(self, "music", music)


def _readable(noted: list[Any]) -> list[Noted]:
    """`Noted` of what a record holds as plain objects; causes of a newer version are left out."""
    found: list[Noted] = []
    for one in noted:
        if isinstance(one, Noted):
            found.append(one)
            continue
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            found.append(Noted.from_object(one))
    return found


@dataclass(frozen=True)
class RankFailure(_Record):
    """What a failing rank leaves for its agent in the file that TORCHELASTIC_ERROR_FILE + '.aurl' names."""

    cause: str
    message: str
    traceback: str
    at: float
    rank: int
    step: int | None = None
    exit_code: int | None = None
    """What the error asks `aurl run` to exit with, where that says more than the rank's own code."""

    def __post_init__(self) -> None:
        Cause(self.cause)


@dataclass(frozen=True)
class RankSaved(_Record):
    """What a rank that ended well, or left, leaves in the file that TORCHELASTIC_ERROR_FILE + '.saved' names.

    `durable_step` and `durable_name` are those of its run's newest checkpoint; None: it has none.
    """

    durable_step: int | None = None
    durable_name: str | None = None


@dataclass(frozen=True)
class LedgerEntry(_Record):
    """One line of the ledger: something that happened to a run, written once by the operator's core.

    `kind` is "incident", "generation" (a world formed or resumed), "node" (a node started or ended), "phase"
    (the job's phase changed), or "cleanup" (what was to be deleted with the job stays). `at` is seconds since
    the epoch. An incident gets a second entry of kind "recovered" with the same `id` when the first new step
    after it is seen; `lost_seconds` is the time from the loss to that step plus the time of the steps done
    again. One whose cause is in `NOTICED` cost nothing to recover from and gets none.
    """

    kind: str
    at: float
    id: str
    cause: str | None = None
    nodes: list[str] = field(default_factory=list)
    uids: list[str] = field(default_factory=list)
    message: str = ""
    step: int | None = None
    lost_seconds: float | None = None
    recovery_seconds: float | None = None
    steps_redone: int | None = None
    traceback: str | None = None
    phase: str | None = None
    world: int | None = None
    generation: int | None = None


class RunFile(StrEnum):
    """What lies where in a local run's directory."""

    JOB = "job.yaml"
    """The job as it runs: defaults filled in, overrides applied."""
    STATE = "state.json"
    """The operator's memory of the run: what a cluster keeps in the object's status."""
    LEDGER = "ledger.jsonl"
    LOGS = "logs"
    """One file per process."""
    RECORDS = "records"
    """What ranks wrote: steps, evaluations, sample ids; files of their own per generation and rank."""
    CHECKPOINTS = "checkpoints"
    KEPT = "kept"
    """Copies of packs that this node's ranks wrote to a store elsewhere."""
    SAMPLES = "samples"
    REPORT = "report.html"
