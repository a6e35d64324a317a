"""Which contents zstd is worth its time on: a sample decides, and is remembered between saves.

Weights and moments are mostly noise; compressing all of them to find out costs more than the copy itself.
Not here: the packs (packs.py).
"""

from __future__ import annotations

import zstandard

SAMPLE_BYTES = 64 * 2**10
"""Taken from the beginning, the middle and the end of a content."""
GAIN = 0.8
"""A content is compressed when its sample shrinks to less than this part. Trained float32 comes to 0.90 to
0.93, which is not worth twice the processor time of all else in a save; trained bfloat16 comes to 0.76."""
REMEMBERED = 10
"""So many saves go by before a content that did not shrink is tried again."""


class Compression:
    """The decisions of one rank at zstd level `level`; 0 compresses nothing. Safe to use from threads."""

    def __init__(self, level: int) -> None:
        self.level = level
        self._hopeless: dict[str, int] = {}

    def worth(self, key: str, content: memoryview) -> bool:
        """Whether to compress the content that `key` names from save to save. Call it once a save."""
        if not self.level or not content.nbytes:
            return False
        left = self._hopeless.get(key, 0)
        if left:
            self._hopeless[key] = left - 1
            return False
        if content.nbytes <= 3 * SAMPLE_BYTES:
            return True
        middle = (content.nbytes - SAMPLE_BYTES) // 2
        sample = b"".join((content[:SAMPLE_BYTES], content[middle:][:SAMPLE_BYTES], content[-SAMPLE_BYTES:]))
        small = len(zstandard.ZstdCompressor(level=self.level).compress(sample))
        return self.learned(key, len(sample), small)

    def learned(self, key: str, content: int, stored: int) -> bool:
        """Remembers what a content of so many bytes came to; whether that was worth it."""
        if stored < GAIN * content:
            return True
        self._hopeless[key] = REMEMBERED
        return False
