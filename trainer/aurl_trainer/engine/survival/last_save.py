"""What is still saved when ranks have to leave: decided from measured times, alike on all of them. Pure.

A save that cannot end in time is worth nothing, and two at once share the bandwidth: the last one has it to
itself. Not here: the notice (preemption.py), the saves (engine/saves.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

MARGIN = 1.25
"""A save may take so much longer than the slowest of late."""


class LastSave(Enum):
    """What all ranks do before they leave."""

    SAVE = "save"
    """Nothing is under way, and there is time for a save."""
    WAIT_AND_SAVE = "wait for the save under way, then save"
    GIVE_UP_AND_SAVE = "give the save under way up, then save"
    """There is time for one of the two: the later state is worth more."""
    WAIT = "wait for the save under way"
    NOTHING = "save nothing"


def lacks(left: float, stage: float, rest: float, under_way: float | None) -> list[float]:
    """For what this rank has too little time, 1.0 each, to be summed over the ranks.

    In order: the save under way and then a new one; a new one alone; the one under way. `left` are the
    seconds until this rank must be gone, `stage` and `rest` what saves have taken of late for the copy and
    for upload and commit, `under_way` how long one has been uploading (None: none is).
    """
    # Of a first save that has not ended it is known only that it takes longer than until now.
    rest = max(rest, under_way or 0.0) * MARGIN
    new = stage * MARGIN + rest
    old = max(0.0, rest - under_way) if under_way is not None else 0.0
    return [float(need > left) for need in (old + new, new, old)]


def last_save(under_way: bool, lacking: Sequence[float]) -> LastSave:
    """The same on every rank: `lacking` are the sums of `lacks` over all of them."""
    both, new, old = (count == 0 for count in lacking)
    if not under_way:
        return LastSave.SAVE if new else LastSave.NOTHING
    if both:
        return LastSave.WAIT_AND_SAVE
    if new:
        return LastSave.GIVE_UP_AND_SAVE
    return LastSave.WAIT if old else LastSave.NOTHING
