"""What the generations before have written down of the steps that are now done again.

In the run directory, where all nodes of one machine write; in pods also beside the checkpoints, where each
keeps its records (monitor/uploads.py), since the pod that wrote them may be gone. What is read is bounded: of
what rank 0 wrote in the newest generations the beginning and the end, which is where the last steps are.
Not here: what follows from it (certificate.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aurl_trainer.contract import Noted, RunFile
from aurl_trainer.engine.resume.certificate import Done
from aurl_trainer.errors import AurlTrainerError
from aurl_trainer.monitor.record_files import record_files
from aurl_trainer.monitor.records import parse
from aurl_trainer.store.location.place import Location

FILES = 8
"""Generations that are read, at most."""

HEAD_BYTES = 2**16
TAIL_BYTES = 2**20
"""What is read of each generation's: the beginning, which says what world it was, and the end."""

SURROUNDINGS = frozenset({"Python", "Platform"})
"""Of a `setup` record's versions, those that change no bit of a loss."""


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


def _newest(names: Iterable[str], generation: int) -> dict[int, list[str]]:
    """Rank 0's files of the newest generations before this one, by generation, each's in order."""
    files: dict[int, list[str]] = {}
    for file in record_files(names):
        if file.rank == 0 and file.generation < generation:
            files.setdefault(file.generation, []).append(file.name)
    return dict(sorted(files.items())[-FILES:])


def _local(folder: Path, generation: int) -> dict[int, bytes]:
    def size(name: str) -> int:
        return (folder / name).stat().st_size

    def read(name: str, start: int, end: int) -> bytes:
        with (folder / name).open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    found = {}
    try:
        for number, names in _newest((p.name for p in folder.iterdir()), generation).items():
            found[number] = b"\n".join(read(*ends) for ends in _ends(names, size))
    except OSError:
        pass  # no folder yet, or a file that went: there is less to compare
    return found


def _kept(location: Location, generation: int, known: Mapping[int, bytes]) -> dict[int, bytes]:
    place = location.below(RunFile.RECORDS)
    found = {}
    for number, names in _newest(location.names(RunFile.RECORDS), generation).items():
        if number in known:
            continue
        try:
            found[number] = b"\n".join(place.get(*ends) for ends in _ends(names, place.size))
        except FileNotFoundError:
            continue
    return found


def _ends(names: Sequence[str], size: Callable[[str], int]) -> list[tuple[str, int, int]]:
    """What is read of files that follow one another, in order: of each its name, from where, to where."""
    left, ends = TAIL_BYTES, []
    for name in reversed(names):
        end = size(name)
        start = max(end - left, 0)
        ends.append((name, start, end))
        left -= end - start
        if not left:
            break
    name, start, end = ends.pop()
    if name != names[0]:
        ends += [(name, start, end), (names[0], 0, min(size(names[0]), HEAD_BYTES))]
    elif start > HEAD_BYTES:
        ends += [(name, start, end), (name, 0, HEAD_BYTES)]
    else:
        ends.append((name, 0, end))
    return ends[::-1]


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
