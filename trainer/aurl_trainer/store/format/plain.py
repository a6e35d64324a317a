"""Plain Python values as JSON and back, without loss: what a manifest holds beside tensors.

JSON has no tuples and no infinities; these become `{"$tuple": [...]}` and `{"$float": "inf"}`. Anything else
that JSON cannot hold faithfully is refused rather than changed or pickled.
"""

from __future__ import annotations

import math
from typing import Any

from aurl_trainer.errors import CheckpointError

TUPLE = "$tuple"
FLOAT = "$float"


def encode(value: Any, where: str) -> Any:
    """`value` as JSON. Raises CheckpointError naming the place of what cannot be saved."""
    if value is None or isinstance(value, bool):
        return value
    # Subclasses (numpy's float64, enums of text or numbers) become the plain value that they equal.
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {FLOAT: repr(float(value))}
    if type(value) is list:
        return [encode(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if type(value) is tuple:
        return {TUPLE: [encode(v, f"{where}[{i}]") for i, v in enumerate(value)]}
    if isinstance(value, dict):
        for key in value:
            if type(key) is not str or key.startswith("$"):
                raise CheckpointError(f"{where}: a checkpoint holds only text as keys, not {key!r}")
        return {k: encode(v, f"{where}.{k}") for k, v in value.items()}
    raise CheckpointError(
        f"{where}: a checkpoint holds tensors and plain values, never pickled objects; "
        f"found {type(value).__module__}.{type(value).__qualname__}"
    )


def decode(value: Any) -> Any:
    """What `encode` was given. Raises CheckpointError for what it never makes."""
    if isinstance(value, list):
        return [decode(v) for v in value]
    if isinstance(value, dict):
        if TUPLE in value:
            if not isinstance(value[TUPLE], list):
                raise CheckpointError(f"{TUPLE} in a checkpoint: expected a list, found {value[TUPLE]!r}")
            return tuple(decode(v) for v in value[TUPLE])
        if FLOAT in value:
            if value[FLOAT] not in ("inf", "-inf", "nan"):
                raise CheckpointError(
                    f"{FLOAT} in a checkpoint: expected inf, -inf or nan, found {value[FLOAT]!r}"
                )
            return float(value[FLOAT])
        return {k: decode(v) for k, v in value.items()}
    return value
