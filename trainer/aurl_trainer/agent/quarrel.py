"""Worlds that end again and again because their nodes blame one another, though none of them was lost.

A rank whose connection breaks has usually lost a peer, so nothing is charged and all meet again. A program
whose ranks do not agree (one ends early, one resumes elsewhere) breaks its connections for ever. Not here:
whose fault a single end is (blame.py).
"""

from __future__ import annotations

WORLDS = 5
"""So many in a row are a crash of the program."""

LONG_SECONDS = 120.0
"""A world that lasted so long has got somewhere, even if its program tells no steps."""


class Quarrel:
    """Counts worlds in a row of the same nodes that got nowhere and ended by blaming a peer."""

    def __init__(self) -> None:
        self._members: frozenset[str] = frozenset()
        self._furthest = 0
        self.worlds = 0

    def ended(self, members: frozenset[str], step: int, seconds: float) -> bool:
        """Takes in one more such end, at `step` after `seconds`. Whether it is one too many."""
        if members != self._members or step > self._furthest or seconds >= LONG_SECONDS:
            self.worlds = 0
        self._members, self._furthest = members, max(step, self._furthest)
        self.worlds += 1
        return self.worlds >= WORLDS
