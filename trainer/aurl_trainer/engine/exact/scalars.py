"""Sums of a few floats that neither their order nor their distribution over ranks can change.

A long accumulator (Kulisch 1981): each float is an exact multiple of 2**-1074, so a sum of floats is a sum of
integers, and only its end is rounded, once. The integer travels as limbs that ranks add as int64. Imports no
torch. Not here: gradients, which are too many for it (fixed_point.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_LIMB = 32
_LOWEST = 1074
"""All finite doubles are multiples of 2**-1074."""
_NUMBERS = (1024 + _LOWEST) // _LIMB + 1
LIMBS = _NUMBERS + 3
"""Integers for one sum: 66 digits of 32 bits, then how many addends were nan, +inf and -inf."""


def to_limbs(addends: Sequence[float]) -> list[int]:
    """The exact sum of `addends` as `LIMBS` integers; those of several ranks add up element by element.

    Each is below 2**32, for up to 2**14 addends, so int64 holds the sum over 2**30 ranks.
    """
    total = nan = above = below = 0
    for value in addends:
        if math.isfinite(value):
            numerator, denominator = value.as_integer_ratio()
            total += numerator << (_LOWEST + 1 - denominator.bit_length())
        elif math.isnan(value):
            nan += 1
        else:
            above, below = above + (value > 0), below + (value < 0)
    sign, size, mask = (-1 if total < 0 else 1), abs(total), (1 << _LIMB) - 1
    limbs = [sign * ((size >> (_LIMB * i)) & mask) for i in range(_NUMBERS - 1)]
    return [*limbs, sign * (size >> (_LIMB * (_NUMBERS - 1))), nan, above, below]


def from_limbs(limbs: Sequence[int]) -> float:
    """The sum, rounded once to the nearest double; infinite or NaN as the plain sum would be."""
    *digits, nan, above, below = limbs
    if nan or (above and below):
        return math.nan
    if above or below:
        return math.inf if above else -math.inf
    total = sum(digit << (_LIMB * i) for i, digit in enumerate(digits))
    try:
        return total / (1 << _LOWEST)
    except OverflowError:
        return math.inf if total > 0 else -math.inf
