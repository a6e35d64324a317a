"""What a listing finds in runs: the checkpoints that count, with their tags, and what is known of each.

The store is listed each time, so what is not there is never shown and nothing newer than an index is missed.
Nothing is written: whoever may only read a store may list it, and looking changes nothing.
Not here: where runs lie (scan.py), the index (index.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aurl_trainer.store.catalog.entries import Entry
from aurl_trainer.store.catalog.index import gather, read_index
from aurl_trainer.store.catalog.scan import THREADS, Run
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.run_store import RunStore


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


def find(run: Run) -> Found:
    """The checkpoints of one run that count, and those with a tag."""
    store = RunStore(run.location)
    valid = store.valid()
    tags = tags_of(store)
    names = sorted({*valid, *tags}, key=lambda n: n.age)
    found = gather(store, names, read_index(run.location, run.name), run.name)
    entries = _tagged(found.entries, tags)
    return Found(run, entries, tuple(map(str, found.problems.values())), found.read)


def tags_of(store: RunStore) -> dict[CheckpointName, tuple[str, ...]]:
    """The tags of each checkpoint that has some, sorted."""
    tags: dict[CheckpointName, tuple[str, ...]] = {}
    for tag, name in store.tags().items():
        tags[name] = (*tags.get(name, ()), tag)
    return tags


def _tagged(entries: Sequence[Entry], tags: dict[CheckpointName, tuple[str, ...]]) -> tuple[Entry, ...]:
    by_name = {str(name): found for name, found in tags.items()}
    return tuple(e.tagged(by_name.get(e.name, ())) for e in entries)
