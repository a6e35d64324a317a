"""Removing checkpoints of a run that is over: the job's clean-up.

Not here: whether they are its own (owned.py), and what goes while it runs (passes.py).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence

from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.catalog.index import refresh_index
from aurl_trainer.store.format.names import GENERATIONS, CheckpointName
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.announced import announce, clear_dead, in_time
from aurl_trainer.store.retention.leftovers import FOLDERS
from aurl_trainer.store.retention.owned import Owned
from aurl_trainer.store.retention.plan import without
from aurl_trainer.store.retention.rules import best_first
from aurl_trainer.store.retention.survey import survey
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify


def everything(location: Location, run: str) -> None:
    """Deletes all that `run` has written, tags too; what is not there is no error.

    Raises RefusedError if the place is another run's, now or, having deleted what was older, meanwhile.
    """
    location.catch_up()
    owned = Owned(RunStore(location), run)
    for folder in FOLDERS:
        owned.look_again()
        if folder == GENERATIONS:
            # One after the other: the latest says whose the place is, also to whoever does the rest.
            for name in location.names(folder):
                location.delete([f"{folder}/{name}"])
        _delete(location, folder)
    _drop_uploads(location)


def _delete(location: Location, folder: str) -> None:
    for child in location.folders(folder):
        _delete(location, f"{folder}/{child}")
    location.delete_folder(folder)


def _drop_uploads(location: Location) -> None:
    """What killed uploads left is not seen; a right that is missing for it keeps nothing else from going."""
    with contextlib.suppress(CheckpointError):
        for uploads in location.uploads("").values():
            location.end_uploads(uploads)


def all_but_best(location: Location, run: str, count: int, by: Mapping[str, float]) -> list[CheckpointName]:
    """Deletes all checkpoints of `run` but the tagged and the best `count`, and returns those that stay.

    `by` weighs the metrics as `keep.by` does. Without any metric, the newest stay. Where some are to go, each
    of the best is read to its last byte first, and one that is damaged gives way to the next; after the last
    that can be rated, to the newest. Raises, having deleted nothing, RefusedError if the place is another
    run's, and CheckpointError if a newer Aurl wrote a checkpoint, or the store does not answer.
    """
    location.catch_up()
    store = RunStore(location)
    owned = Owned(store, run)
    known = survey(store, strict=True)
    assert known is not None
    found = known.checkpoints
    valid = set(store.valid())
    whole = [c for c in found if c.name in valid and c.at is not None]
    newest = sorted(whole, key=lambda c: c.name.age, reverse=True)
    rated = best_first(whole, by)
    order = list(dict.fromkeys(c.name for c in [*rated, *newest]))
    names = {c.name for c in found}
    stay = set(_first_whole(store, order, min(count, len(rated)) if rated else count))
    gone = names - stay - set(store.tags().values())
    folders = store.pack_folders()
    owned.look_again()  # reading took its time
    if gone:
        # In time: whoever wants a tag waits for no longer. Packs can wait, nobody can tag them any more.
        with in_time(location) as bounded:
            announcement = announce(location, gone)
            gone -= set(store.tags().values())
            bounded.delete([name.manifest for name in sorted(gone, key=lambda n: n.age)])
        location.delete([announcement])
        clear_dead(location)
    for name in without(found, gone, folders).folders:
        location.delete_folder(name.folder)
    _drop_uploads(location)
    refresh_index(store, known.entries)
    return sorted(names - gone, key=lambda name: name.age)


def _first_whole(store: RunStore, order: Sequence[CheckpointName], count: int) -> list[CheckpointName]:
    """The first `count` that are whole; if none is, the first `count`: nobody is left to judge them."""
    if len(order) <= count:
        return list(order)
    whole = (name for name in order if verify(store, name).good)
    return list(itertools.islice(whole, count)) or list(order[:count])
