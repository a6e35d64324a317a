"""What there is to read: the pieces of a source, their labels, and a digest over all of it.

Here: folders and fsspec URLs of MIDI files, the CSV of labels, and the list of chorales. Not here: parsing
(../reading.py), and choosing what is held out (../split.py).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from aurl_trainer.config.data import SourceConfig
from aurl_trainer.data.alive import Alive
from aurl_trainer.data.readers import Task
from aurl_trainer.data.source.chorales import chorales, edition
from aurl_trainer.data.source.storage import ask, fetch, find, open_storage
from aurl_trainer.errors import DataError, MissingError
from aurl_trainer.store.location.place import shown

_ENDINGS = {".mid", ".midi"}
_AT_ONCE = 64
"""Files fetched together: fsspec does these at the same time where the storage can."""

_VERSIONS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
"""What file systems tell about a file's content, best first."""

_NOTES = 2
"""Raised when the same listing gets another digest."""


@dataclass(frozen=True)
class Source:
    """One thing to read: `name` is unique and for people; `size` in bytes, None if not known.

    `labels` holds `composer`, `set` and `title` as far as they are known; None: there are labels, but not for
    this file. `place` is a path on the source's file system, or a chorale's name.
    """

    name: str
    place: str
    size: int | None = None
    version: str | None = None
    labels: dict[str, str] | None = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """All of a source: `sources` sorted by name, and `warnings` for people.

    `digest` is over names and contents, and over the labels, so that it is the same wherever the files lie.
    `labelled` are the columns of labels that there are.
    """

    sources: tuple[Source, ...]
    digest: str
    labelled: frozenset[str]
    warnings: tuple[str, ...] = ()


def list_source(config: SourceConfig, cache: Path, alive: Alive = lambda: None) -> Listing:
    """Everything in a source. `cache` takes a note of digests, so that unchanged files are read once.

    `alive` is called again and again while files are read for these.

    Raises DataError if the folder or the labels cannot be read or hold nothing; UnreadError if only now.
    """
    if config.midi is None:
        return _list_chorales()
    found, others = _find(config.midi)
    if not found:
        also = f" (it has {others} files of other kinds)" if others else ""
        raise DataError(f"data.source.midi: no .mid or .midi file in {shown(config.midi)}{also}")
    labels, warnings = ({}, []) if config.labels is None else _labels(config.labels, {s.name for s in found})
    labelled = frozenset().union(*(row.keys() for row in labels.values())) if labels else frozenset()
    sources = tuple(
        Source(s.name, s.place, s.size, s.version, {} if config.labels is None else labels.get(s.name))
        for s in sorted(found, key=lambda s: s.name)
    )
    contents = _contents(config, sources, cache, alive)
    digest = _sha256([contents, [[s.name, s.labels] for s in sources]])
    return Listing(sources, digest, labelled, tuple(warnings))


def tasks(
    config: SourceConfig, chosen: Sequence[tuple[int, Source]], cache: Path
) -> Iterator[Task | tuple[int, str]]:
    """For each chosen source, by its number, a task for a reader, or the reason why there is none.

    Raises DataError for a file that the storage does not give.
    """
    if config.midi is None:
        folder = cache / f"bach-{edition()}"
        for index, source in chosen:
            name = PurePosixPath(source.place).name
            yield Task(index, {"chorale": source.place, "midi": str(folder / f"{name}.mid")})
        return
    for start in range(0, len(chosen), _AT_ONCE):
        batch = chosen[start : start + _AT_ONCE]
        bodies = _fetch(config.midi, [source for _, source in batch])
        for (index, _), body in zip(batch, bodies, strict=True):
            problem = refusal(len(body), config.max_file_bytes)
            yield (index, problem) if problem else Task(index, {}, body)


def refusal(size: int | None, largest: int) -> str | None:
    """Why a file of so many bytes is not read at all, if so."""
    if size == 0:
        return "empty file (0 bytes)"
    if size is not None and size > largest:
        return f"{size:,} bytes, more than data.source.max_file_bytes ({largest:,})"
    return None


def _list_chorales() -> Listing:
    try:
        found = chorales()
    except ImportError as error:
        raise MissingError(
            f"data.source.music21 needs music21: pip install 'aurl[trainer]' ({error})"
        ) from None
    sources = tuple(
        Source(c.name, c.name, labels={"composer": "Bach", "set": c.work, "title": c.title}) for c in found
    )
    digest = _sha256([edition(), [s.name for s in sources]])
    return Listing(sources, digest, frozenset({"composer", "set", "title"}))


def _find(url: str) -> tuple[list[Source], int]:
    """MIDI files below `url`, and how many other files there are."""
    system, root = open_storage(url, "data.source.midi")
    failed = f"data.source.midi: {shown(url)} cannot be listed"
    try:
        # Not exists() and isfile(): they take every failure for a no.
        if ask(system, "info", root, failed=failed)["type"] == "file":
            raise DataError(
                f"data.source.midi: {shown(url)} is a file; name the folder that holds the MIDI files"
            )
        files = find(system, root, failed)
    except FileNotFoundError:
        raise DataError(f"data.source.midi: there is no folder {shown(url)}") from None
    found = []
    for path, info in files.items():
        if PurePosixPath(path).suffix.lower() in _ENDINGS:
            version = next((f"{k}={info[k]}" for k in _VERSIONS if info.get(k)), None)
            name = path[len(root) :].lstrip("/") if path.startswith(root) else path
            # A name that is not UTF-8 would fail wherever it is hashed, written or shown.
            name = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
            found.append(Source(name, path, info.get("size"), version))
    return found, len(files) - len(found)


def _fetch(url: str, batch: Sequence[Source]) -> list[bytes]:
    system, _ = open_storage(url, "data.source.midi")
    where = f"data.source.midi: {shown(url).rstrip('/')}"
    return fetch(system, [(source.place, f"{where}/{source.name}") for source in batch])


def _contents(config: SourceConfig, sources: Sequence[Source], cache: Path, alive: Alive) -> str:
    """A digest over the contents of all files, from the cache if size and version of all are the same."""
    assert config.midi is not None
    seen = _sha256(
        [_NOTES, config.midi, config.max_file_bytes, [[s.name, s.size, s.version] for s in sources]]
    )
    note = cache / "digests" / seen
    known = all(s.version is not None for s in sources)
    if known and note.is_file():
        return note.read_text()
    whole = hashlib.sha256()
    readable = [s for s in sources if refusal(s.size, config.max_file_bytes) is None]
    for source in sources:
        whole.update(json.dumps([source.name, source.size]).encode())
    for start in range(0, len(readable), _AT_ONCE):
        for body in _fetch(config.midi, readable[start : start + _AT_ONCE]):
            whole.update(hashlib.sha256(body).digest())
        alive()
    digest = whole.hexdigest()
    if known:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(digest)
    return digest


def _labels(url: str, names: set[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Labels by file, and warnings. Raises DataError for a CSV that cannot be used."""
    where = f"data.source.labels: {shown(url)}"
    system, path = open_storage(url, "data.source.labels")
    try:
        text = ask(system, "cat_file", path, failed=f"{where} cannot be read").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{where} is not UTF-8 text") from None
    except FileNotFoundError:
        raise DataError(f"{where} cannot be read: there is no such file") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    labels: dict[str, dict[str, str]] = {}
    try:
        columns = [c for c in reader.fieldnames or [] if c]
        if "file" not in columns:
            raise DataError(f"{where} has no column 'file'; its columns are: {', '.join(columns) or 'none'}")
        for row in reader:
            name = str(PurePosixPath((row["file"] or "").strip()))
            if name in labels:
                raise DataError(f"{where}, line {reader.line_num}: {name} has two rows")
            wanted = {k: (row.get(k) or "").strip() for k in ("composer", "set", "title")}
            labels[name] = {k: v for k, v in wanted.items() if v}
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num}: not readable as CSV: {error}") from None
    matched = len(labels.keys() & names)
    if not matched:
        example = next(iter(labels), "nothing")
        raise DataError(
            f"{where} names none of the MIDI files: it says {example!r}, the folder has {min(names)!r}; "
            "'file' is the path below data.source.midi"
        )
    warnings = [f"{len(labels) - matched} rows of {shown(url)} name no file"] if matched < len(labels) else []
    return {name: row for name, row in labels.items() if name in names}, warnings


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
