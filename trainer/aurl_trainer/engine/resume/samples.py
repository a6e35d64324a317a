"""A fingerprint of the samples of a step that no order and no division over ranks can change.

Ranks cannot send each other their ids at every step; a few numbers ride along in a reduction that is made
anyway. Not here: which samples a step takes (data/batches.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aurl_trainer.data.batches import mix

MOST = 2**21
"""Samples of a step up to which the sums are exact: so many numbers of 32 bits fit the 53 of a float."""


def sums(ids: Sequence[int]) -> list[float]:
    """Three numbers whose sums over all ranks say which samples the step used: count, and two sums of hashes.

    Two steps with the same sums used the same samples, each equally often, but for a chance of 2^-64.
    """
    hashes = mix(np.asarray(ids, dtype=np.uint64) + np.uint64(1))
    low, high = hashes & np.uint64(0xFFFFFFFF), hashes >> np.uint64(32)
    return [float(len(ids)), float(low.sum()), float(high.sum())]


def shown(total: Sequence[float]) -> str:
    """The sums over all ranks as the records have them, `32:1a2b3c4d5e:5f6a7b8c9d`."""
    count, low, high = (int(v) for v in total)
    return f"{count}:{low:x}:{high:x}"
