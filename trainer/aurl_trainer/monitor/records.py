"""Records: what the ranks of a run write down while it runs, one JSON object a line.

Here: the kinds of records, their writer, and their reader. Not here: what they mean together (which steps
survived, what was lost); that is `report/`. Standard library only.

A rank writes to files of its own (record_files.py), so that nothing is locked and no two generations ever
share one. Each line is one `write(2)`: a rank killed at any instant leaves whole lines and at most one torn
one, which the reader skips.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aurl_trainer.monitor.record_files import PART_BYTES, RecordFile, record_files

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Start:
    """A rank begins a generation. `checkpoint` names what it resumed from, `resumed_from` its step.

    `loaded` says what that took (checkpoint/reading/memory.py: bytes, seconds), and `initial` whose weights a
    new run has begun with (checkpoint/initial.py).
    """

    generation: int
    rank: int
    world: int
    total_steps: int
    node: str = ""
    resumed_from: int | None = None
    checkpoint: str | None = None
    loaded: dict[str, Any] | None = None
    initial: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step, written by rank 0 when it is finished; the first step of a run is 1.

    `loss` is nats per token over the global batch, `tokens` the number of its targets, `seconds` the wall
    time since the step before, `grad_norm` the norm before clipping.
    """

    step: int
    loss: float | None
    lr: float
    tokens: int
    seconds: float
    grad_norm: float | None = None
    epoch: int | None = None
    samples: str | None = None
    """Fingerprint of the samples that all ranks used together (engine/resume/samples.py)."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A validation after `step`: `val_loss` is nats per token over `tokens` targets."""

    step: int
    val_loss: float | None
    tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Save:
    """A checkpoint after `step`, or with `ok` false an attempt that failed; `message` says why.

    `seconds` is what training waited. The save itself took `stage_seconds` for the copy, `upload_seconds`
    until all was durable and `commit_seconds` more. `bytes` were written, `reused` bytes lie in packs of
    earlier checkpoints, `staging` is the host memory of rank 0's copy. `skipped`: left out by rule.
    """

    step: int
    seconds: float
    bytes: int
    ok: bool
    message: str = ""
    reused: int = 0
    staging: int = 0
    stage_seconds: float = 0.0
    upload_seconds: float = 0.0
    commit_seconds: float = 0.0
    skipped: bool = False


@dataclass(frozen=True, kw_only=True)
class Resume:
    """What a generation went on from, by rank 0: the checkpoint of `step`, loaded in `seconds`.

    `manifest` is the digest of its manifest, `weights` one over the model's weights as they were loaded, and
    `weights_match` whether each is what the manifest says; both None where the model is sharded, so that no
    rank holds all of them: then the hash of each piece, checked while it was read, is all there is. Its
    bytes came, over all ranks, from the nodes' own disks, from peers and from the store; the store alone
    would have taken about `saved_seconds` longer.
    """

    step: int
    checkpoint: str
    manifest: str
    weights: str | None
    weights_match: bool | None
    seconds: float
    disk_bytes: int = 0
    peer_bytes: int = 0
    store_bytes: int | None = None
    """None: not counted, all of it."""
    saved_seconds: float = 0.0


TOLERANCE = 1e-3
"""How far the losses of a step done again may differ where the order of its sums does, nats per token."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The resume certificate (engine/resume/certificate.py), by rank 0 after the first steps.

    `step` is the one resumed from, `steps_redone` how many after it were on record, `compared` has an object
    for each step compared: both losses, generation and world of the first time, whether the samples were the
    same (None: not on record) and whether equality in every bit was asked for.
    """

    step: int
    verdict: str
    steps_redone: int
    compared: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Noted:
    """Something that rank 0 noticed and that ends no node: an incident of one of `contract.NOTICED`.

    The fields are contract.Noted's.
    """

    id: str
    cause: str
    message: str
    step: int | None = None
    checkpoint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Music sampled after `step`, and what it measures (music/metrics.py). `files` are relative to the run
    directory."""

    step: int
    files: list[str]
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Sample ids that this rank used in `step`, in order, and the step's loss; each rank writes its own."""

    step: int
    ids: list[int]
    loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Nats per token over the validation targets: of the model at the end, and of models that only count."""

    unigram: float
    markov2: float
    val_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class End:
    """A rank leaves a generation on its own feet; a killed one writes none."""

    step: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What this generation trains and on what, for the reader of a report; rank 0 writes one at its start.

    `rejected` holds `{"file": ..., "reason": ...}` of files that could not be used (the first hundred, say)
    and `rejected_total` how many there were. `versions` is free: `{"torch": "2.13.0", "device": "cpu"}`.
    """

    parameters: int | None = None
    vocabulary: int | None = None
    train_pieces: int | None = None
    validation_pieces: int | None = None
    train_samples: int | None = None
    validation_samples: int | None = None
    rejected: list[dict[str, str]] = field(default_factory=list)
    rejected_total: int = 0
    versions: dict[str, str] = field(default_factory=dict)


KINDS: dict[str, type[Any]] = {
    "start": Start,
    "step": Step,
    "evaluation": Evaluation,
    "save": Save,
    "resume": Resume,
    "certificate": Certificate,
    "noted": Noted,
    "samples": Samples,
    "audit": Audit,
    "baselines": Baselines,
    "end": End,
    "setup": Setup,
}
"""Every kind of record by the name in its `kind` field."""


class RecordWriter:
    """Appends records of one rank in one generation; a context manager.

    A disk that is full or gone costs records, never the run: the first failure is logged, `lost` counts all.
    """

    def __init__(self, folder: Path | str, generation: int, rank: int, node: str = "") -> None:
        """Opens the last part below `folder` (made if missing). An OSError here is logged, not raised.

        `node` is the name of the node that the rank runs on, for its `start` record.
        """
        self._folder = Path(folder)
        self._part = RecordFile(generation, rank)
        self.lost = 0
        self._node = node
        self._file = -1
        self._size = 0
        self._torn = False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            written = record_files(p.name for p in self._folder.iterdir())
            mine = [file for file in written if (file.generation, file.rank) == (generation, rank)]
            self._open(max(mine, default=self._part))
        except OSError as error:
            log.warning("%s: records cannot be written: %s", self.path, error.strerror)

    @property
    def path(self) -> Path:
        """The part that is written to."""
        return self._folder / self._part.name

    def _open(self, part: RecordFile) -> None:
        file = os.open(self._folder / part.name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.close()
        self._part, self._file = part, file
        self._size = os.fstat(file).st_size
        self._torn = self._size > 0  # an empty line is harmless, a joined one is not

    def write(self, kind: str, **fields: Any) -> None:
        """Appends one record. A number that is not finite becomes null.

        Raises TypeError for fields that `KINDS[kind]` does not have and KeyError for an unknown kind.
        """
        if kind == "start":
            fields.setdefault("node", self._node)
        record = KINDS[kind](**fields)
        values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
        line = json.dumps({"kind": kind, "at": time.time(), **_plain(values)}, separators=(",", ":"))
        data = f"{line}\n".encode()
        try:
            self._append(data)
        except OSError as error:
            self._torn = True
            if not self.lost:
                log.warning("%s: records are being lost: %s", self.path, error.strerror)
            self.lost += 1

    def _append(self, data: bytes) -> None:
        if self._size and self._size + len(data) > PART_BYTES:
            with contextlib.suppress(OSError):  # a part that grows too long is better than a lost record
                self._open(self._part.next)
        if self._torn:
            data = b"\n" + data
        written = os.write(self._file, data)
        self._size += written
        if written != len(data):
            raise OSError(0, "short write; is the disk full?")
        self._torn = False

    def close(self) -> None:
        """Closes the file; more records are lost."""
        if self._file >= 0:
            os.close(self._file)
            self._file, self._size = -1, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_records(folder: Path | str, kinds: Collection[str] | None = None) -> list[dict[str, Any]]:
    """All records below `folder` (of the given kinds), sorted by generation and time.

    Each is the written object with `generation` and `rank` from its file's name. Lines that are not whole
    and records that lack a required field are skipped; no folder means no records.
    """
    found: list[dict[str, Any]] = []
    root = Path(folder)
    for file in record_files(p.name for p in root.iterdir()) if root.is_dir() else []:
        place = {"generation": file.generation, "rank": file.rank}
        with (root / file.name).open("rb") as lines:
            for line in lines:
                record = parse(line)
                if record is not None and (kinds is None or record["kind"] in kinds):
                    found.append(record | place)
    found.sort(key=lambda r: (r["generation"], r["at"]))
    return found


def parse(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None for one that is torn, or lacks a field."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("at"), int | float):
        return None
    kind = KINDS.get(str(record.get("kind")))
    if kind is None or not _required(kind) <= record.keys():
        return None
    return record


def _required(kind: type[Any]) -> set[str]:
    missing = dataclasses.MISSING
    return {f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing}


def _plain(value: Any) -> Any:
    """`value` as plain JSON: numpy's and torch's scalars and arrays unpacked, NaN and infinities null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    unpack = getattr(value, "tolist", None)
    if unpack is None:
        raise TypeError(f"a record cannot hold a {type(value).__name__}")
    return _plain(unpack())
