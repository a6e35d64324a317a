"""What writers left that were killed: partial files on local disks, and parts of uploads on S3.

Not here: packs without a manifest (plan.py, passes.py).
"""

from __future__ import annotations

import contextlib

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
from aurl_trainer.store.presence import PRESENCE

FOLDERS = (
    MANIFESTS, TAGS, PACKS, ASIDE, REMOVALS, INDEX, GENERATIONS,
    RunFile.RECORDS, RunFile.LOGS, RunFile.SAMPLES, PRESENCE, PROBES,
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


def drop_uploads(location: Location, mine: GenerationId) -> None:
    """Ends packs that killed writers of this or an earlier generation had begun to send.

    A right that is missing for it harms no save.
    """

    def is_dead(name: str) -> bool:
        owner = CheckpointName.parse(name.partition("/")[0])
        return owner is not None and owner.generation <= mine

    with contextlib.suppress(CheckpointError):
        location.drop_uploads(PACKS, is_dead)
