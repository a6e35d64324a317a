"""The entries of runs: from an index that each run may have, and from the manifests that it lacks.

The index is one sealed object in the run's own place, `index/checkpoints.json`. It repeats what manifests
say, which are written once, so an entry in it never becomes wrong. Which checkpoints there are, and which
count, is listed each time: an index that is old, damaged or gone only costs reading those manifests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.catalog.entries import Entry
from aurl_trainer.store.catalog.scan import THREADS, Run
from aurl_trainer.store.format.marks import INDEX
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.sealed import seal, unseal
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore

OBJECT = f"{INDEX}/checkpoints.json"
FORMAT = "aurl-index"
VERSION = 1

_STORED = tuple(f.name for f in fields(Entry) if f.name not in ("run", "tags", "config"))


@dataclass(frozen=True)
class Found:
    """The entries of one run, oldest first. `problems`: a line for each manifest that cannot be used.
    `read`: how many manifests had to be read."""

    run: Run
    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()
    read: int = 0


def find_all(runs: Sequence[Run], done: Callable[[], None] = lambda: None) -> list[Found]:
    """What is in each run; `done` is called after each. Raises CheckpointError when the store fails."""

    def one(run: Run) -> Found:
        found = find(run)
        done()
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, runs))


def find(run: Run, *, use_index: bool = True) -> Found:
    """The checkpoints of one run that count, and those with a tag."""
    store = RunStore(run.location)
    valid = store.valid()
    tags: dict[CheckpointName, tuple[str, ...]] = {}
    for tag, name in store.tags().items():
        tags[name] = (*tags.get(name, ()), tag)
    names = [*valid, *(n for n in tags if n not in set(valid))]
    known = read_index(run) if use_index else {}
    entries, problems, read = [], [], 0
    for name in sorted(names, key=lambda n: n.age):
        entry = known.get(str(name))
        if entry is None:
            read += 1
            try:
                entry = Entry.of(store.manifest(name), run.name)
            except CheckpointError as error:
                problems.append(str(error))
                continue
        entries.append(entry.tagged(tags.get(name, ())))
    return Found(run, tuple(entries), tuple(problems), read)


def read_index(run: Run) -> dict[str, Entry]:
    """What the run's index says, by checkpoint; nothing if there is none or it cannot be used."""
    try:
        value = unseal(run.location.get(OBJECT), OBJECT)
    except (FileNotFoundError, DamagedError):
        return {}
    try:
        if value["format"] != FORMAT or value["version"] != VERSION:
            return {}
        configs = value["configs"]
        entries = [
            Entry(run=run.name, config=configs[row["config"]], **{f: row[f] for f in _STORED})
            for row in value["checkpoints"]
        ]
    except (KeyError, TypeError, IndexError):
        return {}
    return {e.name: e for e in entries}


def write_index(location: Location, entries: Sequence[Entry]) -> None:
    """Writes the run's index; whoever writes last has said the same of each checkpoint."""
    configs: list[Any] = []
    rows = []
    for entry in entries:
        if entry.config not in configs:
            configs.append(dict(entry.config))
        row = {f: getattr(entry, f) for f in _STORED}
        rows.append({**row, "metrics": dict(entry.metrics), "config": configs.index(entry.config)})
    record = {"format": FORMAT, "version": VERSION, "at": time.time(), "configs": configs}
    location.put(OBJECT, seal({**record, "checkpoints": rows}))
