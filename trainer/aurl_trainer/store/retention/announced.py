"""Removals are announced before they happen, so that whoever needs a checkpoint cannot lose it unawares.

Who removes: (1) writes an announcement with the names, (2) looks again at what must stay, (3) removes,
within REMOVE_SECONDS, (4) deletes the announcement. Who needs one (a tag, a copy): (1) writes its own
object, (2) looks at the announcements, (3) if one names the checkpoint waits until that is gone, and looks
whether the checkpoint is still there. Each writes before it looks, so at least one of the two sees the other.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Iterator

from aurl_trainer.errors import CheckpointError, DamagedError, UnavailableError
from aurl_trainer.store.format.marks import REMOVALS
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.sealed import seal, unseal
from aurl_trainer.store.location.place import Location

REMOVE_SECONDS = 60.0
"""So long after its announcement nothing is removed any more."""

DEAD_SECONDS = 900.0
"""An announcement as old as this is what a killed process left."""


def announce(location: Location, names: Collection[CheckpointName]) -> str:
    """Announces that the checkpoints in `names` will be removed. Returns the object to delete afterwards."""
    name = f"{REMOVALS}/r-{secrets.token_hex(8)}.json"
    listed = sorted(str(n) for n in names)
    location.publish(name, seal({"format": "aurl-removal", "version": 1, "at": time.time(), "names": listed}))
    return name


@contextlib.contextmanager
def in_time(location: Location) -> Iterator[Location]:
    """The place for as long as whoever waits for the announcement does: what is left goes the next time."""
    until = time.monotonic() + REMOVE_SECONDS
    try:
        yield location.until(until)
    except UnavailableError:
        if time.monotonic() < until:
            raise
        raise CheckpointError(
            f"{location.uri}: the store is too slow; some old checkpoints stay for now"
        ) from None


def announced(location: Location) -> Iterator[tuple[str, frozenset[str] | None]]:
    """The announcements: each object, and the names in it; None: it is dead or damaged."""
    for last in location.names(REMOVALS):
        name = f"{REMOVALS}/{last}"
        try:
            value = unseal(location.get(name), name)
            names = frozenset(map(str, value["names"]))
            dead = _is_dead(location, name, float(value["at"]))
        except FileNotFoundError:
            continue
        except (DamagedError, KeyError, TypeError, ValueError):
            yield name, None
            continue
        yield name, None if dead else names


def _is_dead(location: Location, name: str, at: float) -> bool:
    """Whether it was written DEAD_SECONDS ago: by this machine's clock, and by the store's own as far as that
    tells, since the clock of one of two machines may be wrong. Raises FileNotFoundError when it is gone."""
    if at > time.time() - DEAD_SECONDS:
        return False
    taken, now = location.taken_at(name), location.now()
    return taken is None or now is None or taken <= now - DEAD_SECONDS


def wait_for_removals(
    location: Location, name: CheckpointName, pause: Callable[[float], None] = time.sleep
) -> None:
    """Returns when no removal that was announced can touch `name` any more; takes two minutes at most."""
    waited = 0.0
    while waited < 2 * REMOVE_SECONDS:
        if not any(names and str(name) in names for _, names in announced(location)):
            return
        pause(1.0)
        waited += 1.0


def clear_dead(location: Location) -> None:
    """Deletes announcements that killed processes left."""
    location.delete([name for name, names in announced(location) if names is None])
