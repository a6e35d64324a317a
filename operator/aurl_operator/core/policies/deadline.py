"""`activeDeadlineSeconds`: how long a job may be active, waiting included, suspension not."""

from __future__ import annotations

from aurl_operator.core.situation import Situation

DEADLINE = "DeadlineExceeded"
"""The reason of a job that failed by it."""


def enforce(s: Situation) -> Situation:
    """Fails the job when its time is over; its nodes are given notice and save."""
    limit = s.spec.active_deadline_seconds
    started = s.memory.started_at
    if limit is None or started is None or not s.open or s.memory.suspended_since is not None:
        return s
    due = started + limit + s.memory.suspended_seconds
    if s.now < due:
        return s.wake(due)
    return s.fail(DEADLINE, f"active for {limit} s, which is all that activeDeadlineSeconds allows")
