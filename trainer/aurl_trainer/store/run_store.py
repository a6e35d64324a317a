"""All checkpoints of one run on one store: generations, commits, reading.

Nobody can lock an object store, so nothing here does. A world takes a generation by writing an object of its
own, looks again before and after each commit, and leaves when a later generation is there. What an earlier
one commits at the same instant is void by its name alone (names.py: is_void, not_void).
Not here: tensors, and agreement among ranks (checkpoint/; only rank 0 writes through this class), tags
(tags.py), removing (retention/).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aurl_trainer.errors import CheckpointError, DamagedError, FencedError, GoneError, RefusedError
from aurl_trainer.store.format.identity import differences
from aurl_trainer.store.format.marks import ASIDE, TAGS, TagMark, tags_in
from aurl_trainer.store.format.names import (
    GENERATIONS,
    MANIFESTS,
    PACKS,
    CheckpointName,
    Fence,
    GenerationId,
    is_fenced,
    not_void,
)
from aurl_trainer.store.format.sealed import seal, unseal
from aurl_trainer.store.format.versions import code_versions
from aurl_trainer.store.location.place import Location

if TYPE_CHECKING:
    from aurl_trainer.store.format.manifest import Head, Manifest


REMEMBERED = 3
"""Manifests of the newest checkpoints that are kept in memory, where they take a megabyte and more."""


@dataclass(frozen=True)
class Claim:
    """A generation taken by this world, and the number of its first save."""

    id: GenerationId
    next_number: int


class RunStore:
    """One run's checkpoints below `location`."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._manifests: dict[CheckpointName, Manifest] = {}

    def until(self, deadline: float) -> RunStore:
        """The same, through a location whose every operation ends by `deadline`; see Location.until."""
        bounded = copy.copy(self)
        bounded.location = self.location.until(deadline)
        return bounded

    # -- reading ----------------------------------------------------------------------------------------

    def fences(self) -> list[Fence]:
        """What the folder of generations says, in order."""
        found = (Fence.parse(n) for n in self.location.names(GENERATIONS))
        return sorted((f for f in found if f is not None), key=lambda f: (f.id, f.settled))

    def committed(self) -> list[CheckpointName]:
        """All checkpoints that have a manifest, void ones too, oldest first."""
        names = (n.removesuffix(".json") for n in self.location.names(MANIFESTS) if n.endswith(".json"))
        found = (CheckpointName.parse(n) for n in names)
        return sorted((n for n in found if n is not None), key=lambda n: n.age)

    def valid(self) -> list[CheckpointName]:
        """The checkpoints of the run's history that were not set aside, oldest first."""
        return self._history()[0]

    def usable(self) -> list[CheckpointName]:
        """As `valid`, for whoever begins at the start where there are none.

        Raises CheckpointError when there are some, but all of them were set aside.
        """
        valid, aside = self._history()
        if aside and not valid:
            raise CheckpointError(
                f"{self.location.uri}: all {len(aside)} checkpoints there are set aside as damaged; `aurl "
                f"checkpoints verify {self.location.uri} --deep --repair` takes back what is whole; to start "
                "anew, give the run another place"
            )
        return valid

    def _history(self) -> tuple[list[CheckpointName], list[CheckpointName]]:
        """The checkpoints of the run's history, oldest first: those that count, and those set aside."""
        # Manifests first: a fence seen later than they can only void more of them.
        names = self.committed()
        fences = self.fences()
        aside = self.aside()
        names = not_void(names, fences)
        return [n for n in names if n not in aside], [n for n in names if n in aside]

    def aside(self) -> frozenset[CheckpointName]:
        """Those that were set aside as damaged."""
        names = (CheckpointName.parse(n.removesuffix(".json")) for n in self.location.names(ASIDE))
        return frozenset(n for n in names if n is not None)

    def tag_marks(self) -> list[TagMark]:
        """All that was said about tags."""
        marks = (TagMark.parse(n) for n in self.location.names(TAGS))
        return [m for m in marks if m is not None]

    def tags(self) -> dict[str, CheckpointName]:
        """What each tag names, sorted by tag."""
        return tags_in(self.tag_marks())

    def removed(self, name: CheckpointName) -> bool:
        """Whether `name`, which was listed, is not committed any more. Asks for it: listings may lag."""
        try:
            self.location.size(name.manifest)
        except FileNotFoundError:
            return True
        except DamagedError:  # it cannot be read, and so it is there
            return False
        return False

    def manifest_bytes(self, name: CheckpointName) -> bytes:
        """The manifest's object. Raises DamagedError when it is gone."""
        try:
            return self.location.get(name.manifest)
        except FileNotFoundError:
            raise DamagedError(f"{name}: its manifest is missing") from None

    def manifest(self, name: CheckpointName) -> Manifest:
        """The manifest, checked. Raises as Manifest.parse does, and DamagedError when it is gone."""
        from aurl_trainer.store.format.manifest import Manifest  # whoever only lists needs no models

        known = self._manifests.get(name)
        if known is None:
            known = Manifest.parse(self.manifest_bytes(name), str(name))
            self._remember(name, known)
        return known

    def head(self, name: CheckpointName) -> Head:
        """The manifest without its tensors. Raises as `manifest` does, of damage what two readings find."""
        from aurl_trainer.store.format.manifest import Head
        from aurl_trainer.store.format.reading import twice

        known = self._manifests.get(name)
        return known or twice(lambda: Head.parse(self.manifest_bytes(name), str(name)))

    def _remember(self, name: CheckpointName, manifest: Manifest) -> None:
        self._manifests[name] = manifest
        for old in sorted(self._manifests, key=lambda n: n.age)[:-REMEMBERED]:
            self.forget(old)

    def pack_folders(self) -> list[CheckpointName]:
        """The checkpoints that have a folder of packs, whether committed or not."""
        found = (CheckpointName.parse(n) for n in self.location.folders(PACKS))
        return [n for n in found if n is not None]

    def forget(self, name: CheckpointName) -> None:
        """Lets go of a manifest that was removed."""
        self._manifests.pop(name, None)

    def generation_time(self, fence: Fence) -> float | None:
        """When a generation's record was written, seconds since the epoch; None if the record cannot tell."""
        try:
            at = unseal(self.location.get(fence.object), str(fence.id)).get("at")
        except (DamagedError, FileNotFoundError):
            return None
        return float(at) if isinstance(at, int | float) else None

    # -- opening ----------------------------------------------------------------------------------------

    def check_identity(self, identity: dict[str, Any]) -> None:
        """Raises RefusedError naming the differing fields when another run's checkpoints are here."""
        recorded = self._recorded_identity()
        if recorded is None:
            return
        lines = differences(recorded, identity)
        if lines:
            more = f"\n  ... and {len(lines) - 12} more" if len(lines) > 12 else ""
            raise RefusedError(
                f"{self.location.uri} holds checkpoints of another configuration; undo the change, "
                "or give this run another place:\n  " + "\n  ".join(lines[:12]) + more
            )

    def check_trained(self) -> None:
        """Raises RefusedError when the newest whole checkpoint is an average, with which no run goes on."""
        for name in reversed(self.valid()):
            try:
                extra = self.manifest(name).extra
            except DamagedError:
                continue
            if "average_of" in extra:
                raise RefusedError(
                    f"{self.location.uri} holds an average of checkpoints, with no optimizer to go on with; "
                    "give the run another place, and begin with this one by initFrom"
                )
            return

    def _recorded_identity(self) -> dict[str, Any] | None:
        """That of the newest whole manifest; without any, that of the latest generation."""
        for name in reversed(self.valid()):
            try:
                return self.manifest(name).identity
            except DamagedError:
                continue
        for fence in reversed(self.fences()):
            try:
                found = unseal(self.location.get(fence.object), str(fence.id)).get("identity")
            except (DamagedError, FileNotFoundError):
                continue
            if isinstance(found, dict):
                return found
        return None

    def last_run(self) -> str | None:
        """The run of the latest generation whose record is whole; None: nobody was here."""
        return next(self._runs(), None)

    def runs(self) -> set[str]:
        """Every run that took a generation here."""
        return set(self._runs())

    def _runs(self) -> Iterator[str]:
        """The runs of the generations, the latest first."""
        for fence in reversed(self.fences()):
            try:
                found = unseal(self.location.get(fence.object), str(fence.id)).get("run")
            except (DamagedError, FileNotFoundError):
                continue
            if isinstance(found, str):
                yield found

    def claim(self, run: str, identity: dict[str, Any], world: int) -> Claim:
        """Takes the next generation. From here on no earlier one can commit any more."""
        fences = self.fences()
        mine = GenerationId.after([*(f.id for f in fences), *(n.generation for n in self.committed())])
        # Published: what is listed from here on was committed before any later generation.
        self._write_generation(Fence(mine), run=run, world=world, identity=identity)
        numbers = [n.number for n in self.committed()] + [n.number for n in self.pack_folders()]
        return Claim(mine, max([*numbers, self._last_number(fences)], default=0) + 1)

    def settle(
        self, claim: Claim, resumed: CheckpointName | None, *, run: str, identity: dict[str, Any]
    ) -> None:
        """Records where the generation resumed from (None: the start), which voids all saves beyond it.

        Raises FencedError when a later generation has been taken meanwhile.
        """
        self.check_fence(claim.id)
        self._write_generation(
            Fence(claim.id, True, resumed),
            run=run,
            identity=identity,
            last_number=claim.next_number - 1,
        )

    def _write_generation(self, fence: Fence, **fields: Any) -> None:
        record = {"format": "aurl-generation", "version": 1, "at": time.time(), "versions": code_versions()}
        self.location.publish(fence.object, seal(record | fields))

    def _last_number(self, fences: Sequence[Fence]) -> int:
        """The greatest number that was known when the latest settled generation opened."""
        for fence in reversed([f for f in fences if f.settled]):
            try:
                found = unseal(self.location.get(fence.object), str(fence.id)).get("last_number")
            except (DamagedError, FileNotFoundError):
                continue
            return found if isinstance(found, int) else 0
        return 0

    # -- writing ----------------------------------------------------------------------------------------

    def check_fence(self, mine: GenerationId) -> None:
        """Raises FencedError when a generation later than `mine` is there, GoneError when `mine` is not."""
        fences = self.fences()
        later = is_fenced(mine, fences)
        if later is not None:
            raise FencedError(
                f"{self.location.uri}: generation {later.number} has taken over from generation "
                f"{mine.number}, which may not save any more"
            )
        if all(f.id != mine for f in fences) and not self._has_record(mine):
            raise GoneError(
                f"{self.location.uri}: the place was deleted under this run: the record of its generation "
                f"{mine.number} is gone; started again, it goes on from what is left there"
            )

    def _has_record(self, mine: GenerationId) -> bool:
        """Whether its claim is there, listed or not: a listing may lag, and is no proof that it is gone."""
        try:
            self.location.get(Fence(mine).object)
        except FileNotFoundError:
            return False
        except DamagedError:  # it cannot be read, and so it is there
            return True
        return True

    def commit(self, manifest: Manifest) -> None:
        """Writes the manifest, after which the checkpoint exists. All its packs must be durable.

        Raises FencedError as `check_fence` does, also when a later generation appeared, or the place was
        deleted, while it was written; CheckpointError when the store refuses.
        """
        name = manifest.checkpoint
        self.check_fence(name.generation)
        try:
            data = manifest.to_bytes()
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{name}: cannot be written as JSON: {error}") from None
        self.location.publish(name.manifest, data)
        self._remember(name, manifest)
        # A generation taken before this second look may not have seen the manifest; any taken after it has.
        self.check_fence(name.generation)
