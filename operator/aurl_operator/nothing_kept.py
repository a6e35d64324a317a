"""kopf's storages for an operator that keeps nothing through kopf: neither objects nor handlers' progress.

kopf prepares both for each event by copying the whole object, several times; handlers of plain events use
neither. What Aurl remembers is in the job's status (core/memory.py).
"""

from __future__ import annotations

from typing import Any

import kopf


class NoDiffBase(kopf.DiffBaseStorage):
    """Remembers no object."""

    def build(self, **_: Any) -> Any:
        """Nothing of the object matters."""
        return {}

    def fetch(self, **_: Any) -> None:
        """There is none."""

    def store(self, **_: Any) -> None:
        """Nowhere."""


class NoProgress(kopf.ProgressStorage):
    """Remembers no handler."""

    def fetch(self, **_: Any) -> None:
        """There is none."""

    def store(self, **_: Any) -> None:
        """Nowhere."""

    def purge(self, **_: Any) -> None:
        """There is none."""

    def touch(self, **_: Any) -> None:
        """There is none."""

    def clear(self, *, essence: Any) -> Any:
        """Nothing of it is in the object."""
        return essence
