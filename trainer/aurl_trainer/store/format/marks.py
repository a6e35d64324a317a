"""Names of what is said about checkpoints after they were saved: tags, those set aside, removals, the index.

    tags/production.n000003-5f3a9c01.v000007-s00000120-g000002-5f3a9c01.json   the tag names this checkpoint
    tags/production.n000004-77aa01c3.none.json                                the tag was deleted
    aside/v000007-s00000120-g000002-5f3a9c01.json                             damaged: no reader takes it
    removals/r-0b12ccd4e1f20a77.json                                          checkpoints that are about to go
    index/checkpoints.json                                                    a copy of what manifests say

Of the objects of one tag the one with the greatest (number, nonce) counts, for everybody: a listing tells.
Not here: when they are written (tags.py, aside.py, retention/, catalog/).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from aurl_trainer.store.format.names import CheckpointName

TAGS = "tags"
ASIDE = "aside"
REMOVALS = "removals"
INDEX = "index"

_GONE = "none"
_TAG = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,62})\.n(\d{6,})-([0-9a-f]{8})\.([a-z0-9-]+)\.json")


@dataclass(frozen=True)
class TagMark:
    """One thing said about a tag. `checkpoint` None: the tag is deleted."""

    tag: str
    number: int
    nonce: str
    checkpoint: CheckpointName | None

    @classmethod
    def after(cls, others: Iterable[TagMark], tag: str, checkpoint: CheckpointName | None) -> TagMark:
        """One that counts over all `others` of its tag."""
        number = max((m.number for m in others if m.tag == tag), default=0) + 1
        return cls(tag, number, secrets.token_hex(4), checkpoint)

    @classmethod
    def parse(cls, name: str) -> TagMark | None:
        """What a name in the folder says; None for any other file."""
        found = _TAG.fullmatch(name)
        if found is None:
            return None
        checkpoint = CheckpointName.parse(found[4])
        if checkpoint is None and found[4] != _GONE:
            return None
        return cls(found[1], int(found[2]), found[3], checkpoint)

    @property
    def order(self) -> tuple[int, str]:
        """Sort key among the marks of one tag."""
        return (self.number, self.nonce)

    @property
    def object(self) -> str:
        """Name of the object that says so."""
        return f"{TAGS}/{self.tag}.n{self.number:06d}-{self.nonce}.{self.checkpoint or _GONE}.json"


def tags_in(marks: Iterable[TagMark]) -> dict[str, CheckpointName]:
    """What each tag names, sorted by tag; deleted ones left out."""
    last: dict[str, TagMark] = {}
    for mark in sorted(marks, key=lambda m: m.order):
        last[mark.tag] = mark
    return {tag: m.checkpoint for tag, m in sorted(last.items()) if m.checkpoint is not None}


def superseded(marks: Iterable[TagMark]) -> list[TagMark]:
    """Those that a later mark of the same tag takes the place of."""
    every = list(marks)
    last = {m.tag: max(o.order for o in every if o.tag == m.tag) for m in every}
    return [m for m in every if m.order < last[m.tag]]


def aside_object(name: CheckpointName) -> str:
    """Name of the object that sets a checkpoint aside."""
    return f"{ASIDE}/{name}.json"
