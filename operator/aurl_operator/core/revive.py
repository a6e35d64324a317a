"""A job that ended goes on from its checkpoint: `aurl run` over a failed run, `aurl resume` on a cluster."""

from __future__ import annotations

import dataclasses

from aurl_operator.api.status import JobPhase
from aurl_operator.core.memory import Memory


def revive_once(memory: Memory, token: str | None) -> Memory:
    """`revive`, if this token has not asked before."""
    if token is None or token == memory.resumed:
        return memory
    return dataclasses.replace(revive(memory), resumed=token)


def revive(memory: Memory) -> Memory:
    """The memory of a failed run with its end taken back: budgets and deadline begin anew.

    What was booked, counted and lost stays. Any other memory is returned as it is.
    """
    if memory.outcome is None or memory.outcome.phase is not JobPhase.FAILED:
        return memory
    ready = memory.first_ready_at
    return dataclasses.replace(
        memory,
        outcome=None,
        tallies={},
        started_at=None,
        short_since=None,
        give_backs=0,
        hold_until=0.0,
        finishing_since=None,
        finished=(),
        # The deadline forgets what was slept through; goodput must not count it as time to train.
        first_ready_at=None if ready is None else ready + memory.suspended_seconds,
        suspended_since=None,
        suspended_seconds=0.0,
        # No range is like this: a new round begins whoever still lives. Who failed may have closed the old.
        nodes_min=0,
        nodes_max=0,
    )
