"""A process to start: its arguments and what its environment has beyond the launcher's own.

Not here: how it is made (`appdef.py`, `node.py`) and who starts it (`backends/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """`argv` with the program first; `env` is laid over the launcher's environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
