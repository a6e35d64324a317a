"""What writers left that were killed: partial files on local disks, parts of uploads on S3, and whole objects
that nobody will come back to.

Not here: packs without a manifest (plan.py, passes.py).
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from aurl_trainer.contract import RunFile
from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.format.marks import ASIDE, INDEX, REMOVALS, TAGS
from aurl_trainer.store.format.names import (
    GENERATIONS,
    MANIFESTS,
    PACKS,
    CheckpointName,
    Fence,
    GenerationId,
)
from aurl_trainer.store.location.disk import whole_name
from aurl_trainer.store.location.multipart import Begun
from aurl_trainer.store.location.place import PROBES, Location
from aurl_trainer.store.music import MUSIC, unlisted
from aurl_trainer.store.presence import PRESENCE

FOLDERS = (
    MANIFESTS, TAGS, PACKS, ASIDE, REMOVALS, INDEX, GENERATIONS,
    RunFile.RECORDS, RunFile.LOGS, RunFile.SAMPLES, MUSIC, PRESENCE, PROBES,
)  # fmt: skip
"""All that a run writes below its URL. Manifests first: who removes them in this order leaves readers whole
checkpoints, or none."""

PARTIAL_SECONDS = 900.0
"""A partial file that nobody has written to for so long has lost its writer: no two bytes of one, not of a
pack either, are so far apart."""


STRAY_SECONDS = 3600.0
"""A probe, or a copy of music without a listing, that is so old has lost its writer."""


def delete_partials(location: Location, mine: GenerationId) -> None:
    """Deletes what killed writers of this or an earlier generation left of manifests and generations.

    For the writer, between two of its saves.
    """
    for folder in (GENERATIONS, MANIFESTS):
        for partial in location.partials(folder):
            whole = whole_name(partial) or ""
            checkpoint = CheckpointName.parse(whole.removesuffix(".json"))
            fence = Fence.parse(whole)
            owner = checkpoint.generation if checkpoint else fence.id if fence else None
            if owner is not None and owner <= mine:
                location.delete([f"{folder}/{partial}"])


def delete_old_partials(location: Location) -> None:
    """Deletes what killed writers left of anything, PARTIAL_SECONDS ago. For anybody, at any time."""
    for folder in FOLDERS:
        location.delete([f"{folder}/{n}" for n in location.partials(folder, PARTIAL_SECONDS)])


def delete_strays(location: Location, now: float | None = None) -> None:
    """Deletes probes and unlisted copies of music that the store took STRAY_SECONDS before `now` or earlier.

    For anybody, at any time. `now`: seconds since the epoch; None: this instant.
    """
    before = (time.time() if now is None else now) - STRAY_SECONDS
    probes = [f"{PROBES}/{name}" for name in location.names(PROBES)]
    location.delete([name for name in probes if _all_older(location, [name], before)])
    for copy, objects in unlisted(location).items():
        if _all_older(location, objects, before):
            location.delete_folder(copy)


def _all_older(location: Location, names: list[str], before: float) -> bool:
    """False where one is not there any more, or the store does not tell."""
    try:
        times = [location.taken_at(name) for name in names]
    except FileNotFoundError:
        return False
    return all(at is not None and at < before for at in times)


def end_uploads(location: Location, mine: GenerationId) -> None:
    """Ends packs that killed writers of this or an earlier generation had begun to send, and music that
    anybody had STRAY_SECONDS ago.

    For the writer, between two of its saves. A right that is missing for it harms no save.
    """
    with contextlib.suppress(CheckpointError):
        for name, uploads in location.uploads(PACKS).items():
            owner = CheckpointName.parse(name.split("/")[1])
            if owner is not None and owner.generation <= mine:
                location.end_uploads(uploads)
        for uploads in _music(location).values():
            location.end_uploads(uploads)


def _music(location: Location) -> dict[str, list[Begun]]:
    """Uploads of music that have lost their writer, by the object's name."""
    before = time.time() - STRAY_SECONDS
    found = {n: [u for u in uploads if u.at < before] for n, uploads in location.uploads(MUSIC).items()}
    return {name: old for name, old in found.items() if old}


@dataclass(frozen=True)
class OldUploads:
    """The objects whose uploads nobody will end; why there may be more, if something was refused."""

    objects: tuple[str, ...] = ()
    problem: str | None = None


def end_old_uploads(location: Location, before: float, *, dry_run: bool) -> OldUploads:
    """Ends packs that somebody had begun to send `before`, seconds since the epoch, and never ended; and
    music, STRAY_SECONDS ago.

    For anybody, at any time, if no save takes so long. Never raises for a right that is missing, or a store
    that does not answer: the checkpoints need none of it.
    """
    ended: list[str] = []
    try:
        for name, uploads in location.uploads(PACKS).items():
            old = [u for u in uploads if u.at < before]
            if CheckpointName.parse(name.split("/")[1]) is None or not old:
                continue
            if not dry_run:
                location.end_uploads(old)
            ended.append(name)
        for name, old in _music(location).items():
            if not dry_run:
                location.end_uploads(old)
            ended.append(name)
    except CheckpointError as error:
        return OldUploads(tuple(ended), str(error))
    return OldUploads(tuple(ended))
