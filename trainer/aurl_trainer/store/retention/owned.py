"""Whether a place is a run's to clean up. Jobs may name each other's places, by mistake or to take over.

A place belongs to the run that took the latest generation there. One without generations is nobody's, unless
checkpoints are there: those were copied. Not here: whether another run may train there (presence.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from aurl_trainer.errors import CheckpointError, DamagedError, RefusedError
from aurl_trainer.store.format.names import Fence, GenerationId
from aurl_trainer.store.format.sealed import unseal
from aurl_trainer.store.run_store import RunStore


class Owned:
    """The place of `store`, which is `run`'s, or nobody's. Listings must have caught up.

    Raises RefusedError if it is another's, or nobody knows whose.
    """

    def __init__(self, store: RunStore, run: str) -> None:
        self._store = store
        self._run = run
        self._latest = self._checked(store.fences())

    def look_again(self) -> None:
        """Before something goes. Raises RefusedError if another run has come meanwhile."""
        fences = self._store.fences()
        if fences and fences[-1].id != self._latest:
            self._latest = self._checked(fences)

    def _checked(self, fences: Sequence[Fence]) -> GenerationId | None:
        uri = self._store.location.uri
        if not fences:
            if self._store.committed():
                raise RefusedError(
                    f"{uri}: no run trained there, and yet there are checkpoints, which somebody copied: "
                    "nothing is deleted"
                )
            return None
        latest = fences[-1].id
        owner = self._owner(latest, [f for f in fences if f.id == latest])
        if owner is None:
            raise RefusedError(
                f"{uri}: what its last run wrote about itself is damaged, so nobody knows whose it is: "
                "nothing is deleted"
            )
        if owner != self._run:
            raise RefusedError(f"{uri} belongs to run {owner}, not to {self._run}: nothing is deleted")
        return latest

    def _owner(self, latest: GenerationId, records: Sequence[Fence]) -> str | None:
        """The run of a generation, by its records, or by what it saved; None: all of these are damaged."""
        for fence in records:
            try:
                found = unseal(self._store.location.get(fence.object), str(fence.id)).get("run")
            except (DamagedError, FileNotFoundError):
                continue
            if isinstance(found, str):
                return found
        for name in self._store.committed():
            if name.generation != latest:
                continue
            try:
                return self._store.manifest(name).run
            except DamagedError:
                continue
            except CheckpointError:  # of a newer format
                return None
        return None
