"""Tags: names that people give to checkpoints, which retention then keeps for ever.

Not here: the objects' names, and which of them counts (format/marks.py).
"""

from __future__ import annotations

import time

from aurl_trainer.config.reference import tag_problem
from aurl_trainer.errors import CheckpointError, ConfigError
from aurl_trainer.store.format.marks import TAGS, TagMark, superseded
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.sealed import seal
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.announced import wait_for_removals
from aurl_trainer.store.run_store import RunStore


def set_tag(store: RunStore, tag: str, checkpoint: CheckpointName) -> CheckpointName | None:
    """Lets `tag` name `checkpoint`; returns what it named before. Whoever writes last has the tag.

    Raises ConfigError for a word that cannot be a tag, CheckpointError if the checkpoint is not there, or was
    removed at the same instant; the tag then names what it named before.
    """
    _check(tag)
    gone = CheckpointError(
        f"{store.location.uri}: {checkpoint} is not there, or goes at this instant; nothing was tagged"
    )
    # Before the tag is written, too: from then on retention does not keep what it named before.
    if _goes(store, checkpoint):
        raise gone
    before = store.tags().get(tag)
    _write(store, tag, checkpoint)
    if _goes(store, checkpoint):
        _write(store, tag, before)
        raise gone
    return before


def delete_tag(store: RunStore, tag: str) -> CheckpointName:
    """Deletes a tag and returns what it named; retention may then remove that.

    Raises CheckpointError if there is no such tag, naming those there are.
    """
    _check(tag)
    tags = store.tags()
    if tag not in tags:
        raise CheckpointError(f"{store.location.uri}: no tag {tag!r}; there are: {', '.join(tags) or 'none'}")
    _write(store, tag, None)
    return tags[tag]


def clear_superseded(location: Location) -> None:
    """Deletes what later marks of the same tags took the place of; what counts stays, so nobody can tell."""
    marks = (TagMark.parse(n) for n in location.names(TAGS))
    location.delete([m.object for m in superseded(m for m in marks if m is not None)])


def _goes(store: RunStore, checkpoint: CheckpointName) -> bool:
    """Whether it is not there, when no removal that was announced can touch it any more."""
    wait_for_removals(store.location, checkpoint)
    return store.removed(checkpoint)


def _check(tag: str) -> None:
    problem = tag_problem(tag)
    if problem is not None:
        raise ConfigError([f"{tag!r} cannot be a tag: {problem}"])


def _write(store: RunStore, tag: str, checkpoint: CheckpointName | None) -> None:
    """Where the first listing lagged, an earlier word may have a greater number than ours: then once more."""
    named = str(checkpoint) if checkpoint else None
    for _ in range(2):
        before = store.tag_marks()
        mark = TagMark.after(before, tag, checkpoint)
        record = {"format": "aurl-tag", "version": 1, "at": time.time(), "tag": tag, "checkpoint": named}
        store.location.publish(mark.object, seal(record))
        if not any(m.tag == tag and m.order > mark.order for m in store.tag_marks()):
            return
