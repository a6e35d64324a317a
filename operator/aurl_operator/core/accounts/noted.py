"""Incidents that end no node: what ranks noticed, taken over from progress and booked exactly once.

A rank tells the same notice again and again, as does the generation after it: the id says so.
The memory holds the ids that were booked, more than progress can hold, and is persisted before anything is
told. Nothing restarts, no budget is charged and no time is lost. Not here: what ranks notice (the trainer).
"""

from __future__ import annotations

from aurl_operator.core.memory import Incident
from aurl_operator.core.policies.recovery import keep
from aurl_operator.core.situation import Situation
from aurl_trainer.contract import NOTICES, Cause, Noted

REMEMBERED = 8 * NOTICES
"""Ids that are remembered, the newest: whatever is told again is among the newest `NOTICES` of the run."""

DAMAGED = 8
"""Damaged checkpoints that the status names, the newest."""


def take(s: Situation) -> Situation:
    """Books what progress tells for the first time."""
    progress = s.observed.progress
    if progress is None or progress.rank != 0:
        return s
    for noted in progress.noted:
        if noted.id not in s.memory.noted:
            s = _book(s, noted)
    return s


def _book(s: Situation, noted: Noted) -> Situation:
    cause = Cause(noted.cause)
    incident = Incident(
        id=f"noted/{noted.id}",
        cause=cause,
        at=min(noted.at, s.now),
        nodes=(),
        uids=(),
        message=noted.message,
        generation=s.memory.generation,
        furthest=noted.step,
        over=True,
    )
    s = keep(s, incident)
    s = s.remember(noted=(*s.memory.noted, noted.id)[-REMEMBERED:])
    if cause is not Cause.CHECKPOINT_DAMAGED or noted.checkpoint is None:
        return s
    return s.remember(damaged=(*s.memory.damaged, noted.checkpoint)[-DAMAGED:])
