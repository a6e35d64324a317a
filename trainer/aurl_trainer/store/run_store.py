"""All checkpoints of one run on one store: generations, commits, reading, retention.

Nobody can lock an object store, so nothing here does. A world takes a generation by writing an object of its
own, looks again before and after each commit, and leaves when a later generation is there. What an earlier
one commits at the same instant is void by its name alone (names.py: is_void).
Not here: tensors, and agreement among ranks; only rank 0 writes through this class (checkpoint/).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aurl_trainer.errors import CheckpointError, DamagedError, FencedError, RefusedError
from aurl_trainer.store.format.identity import differences
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.names import (
    GENERATIONS,
    MANIFESTS,
    PACKS,
    CheckpointName,
    Fence,
    GenerationId,
    is_fenced,
    is_void,
)
from aurl_trainer.store.format.sealed import seal, unseal
from aurl_trainer.store.format.versions import code_versions
from aurl_trainer.store.location import PARTIAL, Location
from aurl_trainer.store.retention import BEST_BY, Kept, sweep


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
        """The checkpoints of the run's history, oldest first."""
        # Manifests first: a fence seen later than they can only void more of them.
        names = self.committed()
        fences = self.fences()
        return [n for n in names if not is_void(n, fences)]

    def manifest_bytes(self, name: CheckpointName) -> bytes:
        """The manifest's object. Raises DamagedError when it is gone."""
        try:
            return self.location.get(name.manifest)
        except FileNotFoundError:
            raise DamagedError(f"{name}: its manifest is missing") from None

    def manifest(self, name: CheckpointName) -> Manifest:
        """The manifest, checked. Raises as Manifest.parse does, and DamagedError when it is gone."""
        if name not in self._manifests:
            self._manifests[name] = Manifest.parse(self.manifest_bytes(name), str(name))
        return self._manifests[name]

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

    def claim(self, run: str, identity: dict[str, Any], world: int) -> Claim:
        """Takes the next generation. From here on no earlier one can commit any more."""
        fences = self.fences()
        mine = GenerationId.after([*(f.id for f in fences), *(n.generation for n in self.committed())])
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
        self.location.put(fence.object, seal(record | fields))

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
        """Raises FencedError when a later generation than `mine` is there."""
        later = is_fenced(mine, self.fences())
        if later is not None:
            raise FencedError(
                f"{self.location.uri}: generation {later.number} has taken over from generation "
                f"{mine.number}, which may not save any more"
            )

    def commit(self, manifest: Manifest) -> None:
        """Writes the manifest, after which the checkpoint exists. All its packs must be durable.

        Raises FencedError, also when a later generation appeared while it was written; CheckpointError when
        the store refuses.
        """
        name = manifest.checkpoint
        self.check_fence(name.generation)
        try:
            data = manifest.to_bytes()
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{name}: cannot be written as JSON: {error}") from None
        self.location.put(name.manifest, data)
        self._manifests[name] = manifest
        # A generation taken before this second look may not have seen the manifest; any taken after it has.
        self.check_fence(name.generation)

    # -- removing ---------------------------------------------------------------------------------------

    def retain(self, mine: GenerationId, latest: int, best: int, *, orphans_only: bool = False) -> None:
        """Removes what no rule keeps and what interrupted saves left; call between two saves of `mine`.

        Does nothing when a later generation is there, or while a manifest of a newer format could refer to
        packs that this version does not know of.
        """
        checkpoints = []
        for name in self.committed():
            try:
                manifest = self.manifest(name)
            except DamagedError:
                checkpoints.append(Kept(name))
            except CheckpointError:
                return
            else:
                packs = frozenset(p.path for p in manifest.packs)
                checkpoints.append(Kept(name, manifest.metrics.get(BEST_BY), packs))
        folders = [n.folder for n in self.pack_folders()]
        # Read last: nothing may be removed once a later generation could be reading it.
        fences = self.fences()
        plan = sweep(checkpoints, folders, fences, mine, latest=latest, best=best, orphans_only=orphans_only)
        self.location.delete([n.manifest for n in plan.manifests])
        for name in plan.manifests:
            self._manifests.pop(name, None)
        for folder in plan.folders:
            self.location.delete_folder(folder)
        self._delete_partials(mine)

    def pack_folders(self) -> list[CheckpointName]:
        """The checkpoints that have a folder of packs, whether committed or not."""
        found = (CheckpointName.parse(n) for n in self.location.folders(PACKS))
        return [n for n in found if n is not None]

    def _delete_partials(self, mine: GenerationId) -> None:
        """Temporary files that killed writers of this or an earlier generation left (local disks only)."""
        for folder in (GENERATIONS, MANIFESTS):
            for partial in self.location.partials(folder):
                whole = partial.removeprefix(".").removesuffix(PARTIAL)
                checkpoint = CheckpointName.parse(whole.removesuffix(".json"))
                fence = Fence.parse(whole)
                owner = checkpoint.generation if checkpoint else fence.id if fence else None
                if owner is not None and owner <= mine:
                    self.location.delete([f"{folder}/{partial}"])
