"""What the generations before have written down of the steps that are now done again.

In the run directory, where all nodes of one machine write; in pods also beside the checkpoints, where each
keeps its records (monitor/uploads.py), since the pod that wrote them may be gone. What is read is bounded: of
the newest generations' files of rank 0 the beginning and the end, which is where the last steps are.
Not here: what follows from it (certificate.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aurl_trainer.contract import Noted, RunFile
from aurl_trainer.engine.resume.certificate import Done
from aurl_trainer.errors import AurlTrainerError
from aurl_trainer.monitor.records import parse
from aurl_trainer.store.location.place import Location

FILES = 8
"""Generations that are read, at most."""

HEAD_BYTES = 2**16
TAIL_BYTES = 2**20
"""What is read of each file: its beginning, which says what world it was, and its end."""

SURROUNDINGS = frozenset({"Python", "Platform"})
"""Of a `setup` record's versions, those that change no bit of a loss."""

_FIRST_RANK = re.compile(r"gen-(\d+)-rank-0000\.jsonl")


@dataclass(frozen=True)
class Past:
    """Steps by number, as the newest generation that did them wrote them; and what was noticed."""

    steps: Mapping[int, Done] = field(default_factory=dict)
    noted: tuple[Noted, ...] = ()
    problem: str | None = None
    """Why there may be less than there was."""

    @property
    def furthest(self) -> int | None:
        """The last step that is on record."""
        return max(self.steps, default=None)


def read_past(folder: Path, location: Location | None, generation: int) -> Past:
    """What generations before `generation` wrote to `folder` and, if given, to the records at `location`.

    Never raises for what cannot be read: `problem` says so, and there is less to compare.
    """
    found, problem = _local(folder, generation), None
    if location is not None:
        try:
            found |= _kept(location, generation, found)
        except AurlTrainerError as error:
            problem = str(error)
    steps: dict[int, Done] = {}
    noted: list[Noted] = []
    for number in sorted(found):
        records = [r for line in found[number].split(b"\n") if (r := parse(line)) is not None]
        steps |= {done.step: done for done in _steps(records, number)}
        noted += _noted(records)
    return Past(steps, tuple(noted), problem)


def surroundings(versions: Mapping[str, str]) -> dict[str, str]:
    """Of a `setup` record's versions, what may change the bits of a loss."""
    return {str(k): str(v) for k, v in versions.items() if k not in SURROUNDINGS}


def _newest(names: Iterable[str], generation: int) -> dict[int, str]:
    """Rank 0's files of the newest generations before this one, by generation."""
    matches = (_FIRST_RANK.fullmatch(name) for name in names)
    files = {int(m[1]): m[0] for m in matches if m is not None and int(m[1]) < generation}
    return dict(sorted(files.items())[-FILES:])


def _local(folder: Path, generation: int) -> dict[int, bytes]:
    found = {}
    try:
        for number, name in _newest((p.name for p in folder.iterdir()), generation).items():
            with (folder / name).open("rb") as file:
                size = file.seek(0, 2)
                parts = []
                for start, end in _ranges(size):
                    file.seek(start)
                    parts.append(file.read(end - start))
            found[number] = b"\n".join(parts)
    except OSError:
        pass  # no folder yet, or a file that went: there is less to compare
    return found


def _kept(location: Location, generation: int, known: Mapping[int, bytes]) -> dict[int, bytes]:
    found = {}
    for number, name in _newest(location.names(RunFile.RECORDS), generation).items():
        if number in known:
            continue
        path = f"{RunFile.RECORDS}/{name}"
        try:
            found[number] = b"\n".join(location.get(path, *r) for r in _ranges(location.size(path)))
        except FileNotFoundError:
            continue
    return found


def _ranges(size: int) -> list[tuple[int, int]]:
    if size <= HEAD_BYTES + TAIL_BYTES:
        return [(0, size)]
    return [(0, HEAD_BYTES), (size - TAIL_BYTES, size)]


def _steps(records: list[dict[str, Any]], generation: int) -> Iterable[Done]:
    start = next((r for r in records if r["kind"] == "start"), {})
    setup = next((r for r in records if r["kind"] == "setup"), {})
    versions = setup.get("versions")
    around = surroundings(versions) if isinstance(versions, dict) else {}
    for record in records:
        if record["kind"] == "step":
            yield Done(
                step=record["step"],
                loss=record["loss"],
                samples=record.get("samples"),
                generation=generation,
                world=start.get("world", 0),
                surroundings=around,
            )


def _noted(records: list[dict[str, Any]]) -> Iterable[Noted]:
    for record in records:
        if record["kind"] == "noted":
            names = ("id", "cause", "at", "message", "step", "checkpoint")
            fields: dict[str, Any] = {name: record.get(name) for name in names}
            try:
                yield Noted(**fields)
            except (TypeError, ValueError):
                continue  # of a newer version
