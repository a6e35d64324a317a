"""Which files the records of a run lie in: those of a rank in one generation are parts of bounded size.

The first part has the name that the whole file had before there were parts, so that old records are read as
they are. Not here: what is in the files (records.py). Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

PART_BYTES = 2**20
"""A part that a further record would make longer is finished: it never changes any more."""

_NAME = re.compile(r"gen-(\d+)-rank-(\d+)(?:\.(\d+))?\.jsonl")


@dataclass(frozen=True, order=True)
class RecordFile:
    """One part, in the order in which they are written. `part` counts from 0."""

    generation: int
    rank: int
    part: int = 0

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The file of that name; None for any other file."""
        found = _NAME.fullmatch(name)
        return None if found is None else cls(int(found[1]), int(found[2]), int(found[3] or 0))

    @property
    def name(self) -> str:
        """As in `gen-000002-rank-0000.jsonl`, and `gen-000002-rank-0000.001.jsonl` after it."""
        more = f".{self.part:03d}" if self.part else ""
        return f"gen-{self.generation:06d}-rank-{self.rank:04d}{more}.jsonl"

    @property
    def next(self) -> Self:
        """The part that follows."""
        return replace(self, part=self.part + 1)


def record_files(names: Iterable[str]) -> list[RecordFile]:
    """Those of `names` that are files of records, in order."""
    return sorted(file for name in names if (file := RecordFile.parse(name)) is not None)
