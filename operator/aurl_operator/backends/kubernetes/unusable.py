"""A job that this operator cannot work: its spec is wrong, a newer operator wrote its memory, or we err.

It says so in a condition of its own; all else in its status, the memory above all, stays as it is, and so
does what runs. Not here: what is wrong (api/, core/memory.py), and the patch (controller.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aurl_operator.core.names import rfc3339
from aurl_trainer.contract import LedgerEntry

INVALID = "InvalidSpec"
NEWER = "NewerOperator"
ERROR = "OperatorError"
"""A defect of ours: the job is tried again, and what its nodes answer is not listened to for a while."""


@dataclass(frozen=True)
class Problem:
    """Why a job cannot be worked. `kind`: type and reason of the condition."""

    kind: str
    words: str


def status_with(
    problem: Problem, status: Mapping[str, Any], generation: int | None, now: float
) -> dict[str, Any]:
    """`status` with the condition that tells of `problem`, in place of one that told of another."""
    before = status.get("conditions", [])
    conditions = [c for c in before if c["type"] not in (INVALID, NEWER, ERROR)]
    return {
        **status,
        "phase": status.get("phase", "Pending"),
        "message": f"{problem.kind}: {problem.words}"[:1024],
        "conditions": [*conditions, condition(problem, before, now)],
        "observedGeneration": generation,
    }


def condition(problem: Problem, before: Sequence[Mapping[str, Any]], now: float) -> dict[str, Any]:
    """The condition that tells of `problem`; its time is that of the same one `before`."""
    known = next((c for c in before if c["type"] == problem.kind), None)
    return {
        "type": problem.kind,
        "status": "True",
        "reason": problem.kind,
        "message": problem.words[:1024],
        "lastTransitionTime": known["lastTransitionTime"] if known else rfc3339(now),
    }


def unexpected(error: Exception) -> Problem:
    """What is said of an error that nobody foresaw: its text may hold anything, so only its kind."""
    words = (
        f"the operator met an error that it did not expect ({type(error).__name__}); its log has the "
        "traceback: please report it. The job is tried again"
    )
    return Problem(ERROR, words)


def let_go(problem: Problem, now: float) -> LedgerEntry:
    """What is told when such a job is deleted: nobody can say how its checkpoints are to be cleaned up."""
    return LedgerEntry(
        kind="cleanup", at=now, id="unusable", message=f"checkpoints stay: {problem.kind}: {problem.words}"
    )
