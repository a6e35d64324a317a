"""What writers left that were killed: partial files on local disks, and parts of uploads on S3.

Not here: packs without a manifest (plan.py, passes.py).
"""

from __future__ import annotations

import contextlib
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
from aurl_trainer.store.location.place import PROBES, Location
from aurl_trainer.store.music import MUSIC
from aurl_trainer.store.presence import PRESENCE

FOLDERS = (
    MANIFESTS, TAGS, PACKS, ASIDE, REMOVALS, INDEX, GENERATIONS,
    RunFile.RECORDS, RunFile.LOGS, RunFile.SAMPLES, MUSIC, PRESENCE, PROBES,
)  # fmt: skip
"""All that a run writes below its URL. Manifests first: who removes them in this order leaves readers whole
checkpoints, or none."""

PARTIAL_SECONDS = 900.0
"""A partial file that nobody has written to for so long has lost its writer: each takes an instant."""


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


def end_uploads(location: Location, mine: GenerationId) -> None:
    """Ends packs that killed writers of this or an earlier generation had begun to send.

    For the writer, between two of its saves. A right that is missing for it harms no save.
    """
    with contextlib.suppress(CheckpointError):
        for name, uploads in location.uploads(PACKS).items():
            owner = CheckpointName.parse(name.split("/")[1])
            if owner is not None and owner.generation <= mine:
                location.end_uploads(uploads)


@dataclass(frozen=True)
class OldUploads:
    """The packs whose uploads nobody will end; why there may be more, if something was refused."""

    packs: tuple[str, ...] = ()
    problem: str | None = None


def end_old_uploads(location: Location, before: float, *, dry_run: bool) -> OldUploads:
    """Ends packs that somebody had begun to send `before`, seconds since the epoch, and never ended.

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
    except CheckpointError as error:
        return OldUploads(tuple(ended), str(error))
    return OldUploads(tuple(ended))
