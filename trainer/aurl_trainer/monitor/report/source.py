"""Reads what a run directory holds, as far as it is there: a run may be going on, or have failed at once.

Not here: what it means (lineage.py, timeline.py, goodput.py, page/story.py), music files (music.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from aurl_trainer.contract import LedgerEntry, RecordError, RunFile
from aurl_trainer.errors import MissingError
from aurl_trainer.monitor.records import read_records
from aurl_trainer.store.location.place import shown

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run directory, read. Everything may be empty except `folder` and `name`."""

    folder: Path
    name: str
    job_text: str = ""
    """Of job.yaml, without passwords in URLs: reports are sent to others."""
    job: dict[str, Any] = field(default_factory=dict)
    ledger: tuple[LedgerEntry, ...] = ()
    records: tuple[Record, ...] = ()

    def of(self, kind: str) -> Iterator[Record]:
        """Records of one kind, by generation and time."""
        return (r for r in self.records if r["kind"] == kind)

    @property
    def setup(self) -> Record:
        """The newest `setup` record, or an empty one."""
        return next(reversed(list(self.of("setup"))), {})

    @property
    def experiment(self) -> dict[str, Any]:
        """The job's `spec.training` as it stands in job.yaml."""
        training = self._spec("training")
        return training if isinstance(training, dict) else {}

    @property
    def foreign(self) -> bool:
        """Whether the job runs a program of its own, which writes no records."""
        return bool(self._spec("command")) and not self.records

    def _spec(self, field: str) -> Any:
        spec = self.job.get("spec")
        return spec.get(field) if isinstance(spec, dict) else None


def read_run(folder: Path) -> Run:
    """The run in `folder`. Raises MissingError if that is no run directory."""
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such run directory; `aurl run job.yaml` makes one below runs/")
    parts = (RunFile.JOB, RunFile.LEDGER, RunFile.RECORDS, RunFile.STATE)
    if not any((folder / part).exists() for part in parts):
        raise MissingError(f"{folder}: not a run directory: it holds none of {', '.join(parts)}")
    text = _text(folder / RunFile.JOB)
    job = _yaml(text)
    meta = job.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    return Run(
        folder=folder,
        name=str(name or folder.resolve().name),
        job_text=shown(text),
        job=job,
        ledger=tuple(sorted(_ledger(folder / RunFile.LEDGER), key=lambda e: e.at)),
        records=tuple(read_records(folder / RunFile.RECORDS)),
    )


@dataclass(frozen=True)
class LogTail:
    """The end of one process's log."""

    name: str
    text: str


def log_tails(folder: Path, files: int = 8, lines: int = 40) -> list[LogTail]:
    """The last lines of the logs that were written last, newest first; empty logs are left out."""
    root = folder / RunFile.LOGS
    found = [p for p in root.rglob("*") if p.is_file() and p.stat().st_size] if root.is_dir() else []
    found.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    return [LogTail(str(p.relative_to(root)), _tail(p, lines)) for p in found[:files]]


def _tail(path: Path, lines: int, most_bytes: int = 16_384) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most_bytes))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "\n".join(text.splitlines()[-lines:])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _yaml(text: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return value if isinstance(value, dict) else {}


def _ledger(path: Path) -> Iterator[LedgerEntry]:
    """Entries of the ledger; a line that is not one (torn, or of a later version) is skipped."""
    for line in _text(path).split("\n"):
        try:
            yield LedgerEntry.from_json(line)
        except RecordError:
            continue
