"""Named plain states: what plugs into the loop and must survive a loss, beside tensors.

Curriculum, early stopping, a gradient scaler and the like each have a name and a few plain values; they are
kept in the checkpoint's manifest. Not here: tensors, which are parts of the state (checkpoint/parts.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class PlainState(Protocol):
    """What has a plain state. It is the same on all ranks, and rank 0's is kept."""

    def state(self) -> dict[str, Any]:
        """All that is needed to go on: dict, list, tuple, text, numbers, None."""

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what `state` gave; from an older version, fields may be missing."""


def gather(states: Mapping[str, PlainState]) -> dict[str, Any]:
    """The values of all, by name."""
    return {name: one.state() for name, one in states.items()}


def scatter(states: Mapping[str, PlainState], saved: Mapping[str, Any]) -> list[str]:
    """Gives each its values back; one line for each name that is only here or only saved."""
    for name, one in states.items():
        if isinstance(saved.get(name), dict):
            one.restore(saved[name])
    lines = [
        f"the checkpoint holds no state of {n}; it begins anew" for n in sorted(states.keys() - saved.keys())
    ]
    return lines + [
        f"the checkpoint's state of {n} is left out: this run has no {n}"
        for n in sorted(saved.keys() - states.keys())
    ]
