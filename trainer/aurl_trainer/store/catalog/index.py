"""A run's index: one sealed object in its own place, `index/checkpoints.json`, that repeats its manifests.

Manifests are written once, so an entry never becomes wrong, and two that write at the same time say the same
of each checkpoint. Which checkpoints there are, and which count, is listed each time: an index that is old,
damaged or gone only costs reading those manifests that it lacks, several at a time.
Not here: what a listing makes of it (found.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.catalog.entries import Entry
from aurl_trainer.store.format.marks import INDEX
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.sealed import seal, unseal
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore

OBJECT = f"{INDEX}/checkpoints.json"
FORMAT = "aurl-index"
VERSION = 1

READERS = 8
"""Manifests of a run that are read at the same time."""

_LATER = ("version", "folders")
"""Fields that an older Aurl neither wrote nor reads."""
_STORED = tuple(f.name for f in fields(Entry) if f.name not in ("run", "tags", "config", *_LATER))


@dataclass(frozen=True)
class Gathered:
    """The entries of some checkpoints, in their order. `problems`: by name, why a manifest cannot be used.
    `read`: of how many the manifests were asked."""

    entries: tuple[Entry, ...]
    problems: Mapping[CheckpointName, CheckpointError]
    read: int


def gather(
    store: RunStore,
    names: Iterable[CheckpointName],
    known: Mapping[str, Entry],
    run: str = "",
    stop: Callable[[], bool] = lambda: False,
) -> Gathered:
    """What is `known` of the checkpoints `names`; of the others what their manifests say.

    When `stop()` says so, those not read yet are problems.
    """

    def read(name: CheckpointName) -> Entry | CheckpointError:
        if stop():
            return CheckpointError(f"{name}: was not read any more")
        try:
            return Entry.of(store.head(name), run)
        except CheckpointError as error:
            return error

    wanted = list(names)
    missing = [n for n in wanted if str(n) not in known]
    with ThreadPoolExecutor(READERS, thread_name_prefix="manifests") as pool:
        found = dict(zip(missing, pool.map(read, missing), strict=True))
    entries, problems = [], {}
    for name in wanted:
        entry = found[name] if name in found else known[str(name)]
        if isinstance(entry, Entry):
            entries.append(entry)
        else:
            problems[name] = entry
    return Gathered(tuple(entries), problems, len(missing))


def renew_index(
    store: RunStore, *, rebuild: bool = False, known: Mapping[str, Entry] | None = None
) -> Gathered:
    """Lets the index tell of what is there now; written only if that is something else than it tells.

    What is `known` besides is not read. `rebuild` believes nothing of the index and reads every manifest.
    Raises CheckpointError when the store fails.
    """
    told = {} if rebuild else read_index(store.location)
    whole = {name: entry for name, entry in told.items() if entry.whole}
    found = gather(store, store.committed(), whole | dict(known or {}))
    if rebuild or len(whole) < len(told) or [e.name for e in found.entries] != list(told):
        write_index(store.location, found.entries)
    return found


def refresh_index(store: RunStore, known: Mapping[str, Entry] | None = None) -> None:
    """Renews the index where something was saved, removed or copied.

    A store that refuses is no harm: whoever changes something next does it, and readers do without.
    """
    with contextlib.suppress(CheckpointError):
        renew_index(store, known=known)


def read_index(location: Location, run: str = "") -> dict[str, Entry]:
    """What the index says, by checkpoint; nothing if there is none or it cannot be used.

    `run` is what the run is called.
    """
    try:
        value = unseal(location.get(OBJECT), OBJECT)
    except (FileNotFoundError, DamagedError):
        return {}
    try:
        if value["format"] != FORMAT or value["version"] != VERSION:
            return {}
        configs = value["configs"]
        entries = [
            Entry(
                run=run,
                config=configs[row["config"]],
                version=row.get("version"),
                folders=tuple(row["folders"]) if "folders" in row else None,
                **{f: row[f] for f in _STORED},
            )
            for row in value["checkpoints"]
        ]
    except (KeyError, TypeError, IndexError, AttributeError):
        return {}
    return {e.name: e for e in entries}


def write_index(location: Location, entries: Sequence[Entry]) -> None:
    """Writes the index; whoever writes last has said the same of each checkpoint."""
    configs: list[Any] = []
    rows = []
    for entry in entries:
        if entry.config not in configs:
            configs.append(dict(entry.config))
        row = {f: getattr(entry, f) for f in (*_STORED, *(_LATER if entry.whole else ()))}
        rows.append({**row, "metrics": dict(entry.metrics), "config": configs.index(entry.config)})
    record = {"format": FORMAT, "version": VERSION, "at": time.time(), "configs": configs}
    location.put(OBJECT, seal({**record, "checkpoints": rows}))
