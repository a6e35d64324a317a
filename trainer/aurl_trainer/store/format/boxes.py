"""Boxes of a tensor, and whether any two have an element in common. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""Offsets and sizes, in elements."""


def disjoint(boxes: Iterable[Box]) -> bool:
    """Whether no element is in two of `boxes`, which are of one tensor; empty ones have none."""
    waiting = [[box for box in boxes if all(box[1])]]
    while waiting:
        group = waiting.pop()
        if len(group) < 2:
            continue
        # Shards are cut along dimensions, so they come apart along them: comparing each with each takes
        # too long for a large world.
        for dim in range(len(group[0][0])):
            parts = list(_apart(group, dim))
            if len(parts) > 1:
                waiting += parts
                break
        else:
            if any(_meet(a, b) for a, b in itertools.combinations(group, 2)):
                return False
    return True


def _apart(boxes: Sequence[Box], dim: int) -> Iterator[list[Box]]:
    """Groups between which no box of one reaches into another's interval of `dim`."""
    group: list[Box] = []
    end = 0
    for box in sorted(boxes, key=lambda b: b[0][dim]):
        if group and box[0][dim] >= end:
            yield group
            group = []
        group.append(box)
        end = max(end, box[0][dim] + box[1][dim])
    yield group


def _meet(a: Box, b: Box) -> bool:
    return all(i < j + m and j < i + n for i, n, j, m in zip(a[0], a[1], b[0], b[1], strict=True))
