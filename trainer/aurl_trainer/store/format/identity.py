"""Whose checkpoints these are: how one run's configuration differs from another's.

Not here: which fields count (config/experiment.py: identity).
"""

from __future__ import annotations

from typing import Any

_ABSENT = object()


def differences(old: Any, new: Any, at: str = "") -> list[str]:
    """One line per field that differs: `dotted.path: old -> new`, in the order of the names."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            place = f"{at}.{key}" if at else str(key)
            lines += differences(old.get(key, _ABSENT), new.get(key, _ABSENT), place)
        return lines
    # 1 and True are equal in Python, 1 and 1.0 are the same number in JSON.
    if old == new and isinstance(old, bool) == isinstance(new, bool):
        return []
    return [f"{at}: {_word(old)} -> {_word(new)}"]


def _word(value: Any) -> str:
    if value is _ABSENT:
        return "(absent)"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
