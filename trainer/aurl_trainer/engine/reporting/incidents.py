"""Incidents that end no node: what the training loop notices, for its records, its progress and the operator.

Each has an id that is the same whenever the same thing is told again, so that the operator books it once; a
generation tells again what the one before it may not have had the time to tell. Not here: what is noticed
(engine/trainer.py, resume/), what becomes of it (the operator's core).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from aurl_trainer.contract import NOTICES, Cause, Noted
from aurl_trainer.engine.runtime import Records


class Note(Protocol):
    """Tells of an incident that ends no node."""

    def __call__(
        self,
        id: str,
        cause: Cause,
        message: str,
        *,
        step: int | None = None,
        checkpoint: str | None = None,
    ) -> None:
        """`id` names it for ever: it is booked once."""


class Incidents:
    """What was noticed, newest last. Only rank 0's are ever told."""

    def __init__(self) -> None:
        self._noted: dict[str, Noted] = {}

    @property
    def newest(self) -> list[Noted]:
        """What progress tells."""
        return sorted(self._noted.values(), key=lambda n: n.at)[-NOTICES:]

    def note(
        self,
        records: Records,
        id: str,
        cause: Cause,
        message: str,
        *,
        step: int | None = None,
        checkpoint: str | None = None,
    ) -> None:
        """Writes it down and tells it from now on. Known ids are passed over."""
        if id in self._noted:
            return
        noted = Noted(id, cause.value, time.time(), message, step, checkpoint)
        self._noted[noted.id] = noted
        records.write(
            "noted",
            id=noted.id,
            cause=noted.cause,
            message=noted.message,
            step=noted.step,
            checkpoint=noted.checkpoint,
        )

    def tell_again(self, earlier: Iterable[Noted]) -> None:
        """Tells what an earlier generation has written down already."""
        self._noted = {n.id: n for n in earlier} | self._noted
