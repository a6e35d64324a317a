"""A job that this operator cannot work: its spec is wrong, or a newer operator wrote its memory.

It says so in a condition of its own; all else in its status, the memory above all, stays as it is, and so
does what runs. Not here: what is wrong (api/, core/memory.py), and the patch (controller.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aurl_operator.core.names import rfc3339
from aurl_trainer.contract import LedgerEntry

INVALID = "InvalidSpec"
NEWER = "NewerOperator"


@dataclass(frozen=True)
class Problem:
    """Why a job cannot be worked. `kind`: type and reason of the condition."""

    kind: str
    words: str


def status_with(
    problem: Problem, status: Mapping[str, Any], generation: int | None, now: float
) -> dict[str, Any]:
    """`status` with the condition that tells of `problem`, in place of one that told of another."""
    conditions = [c for c in status.get("conditions", []) if c["type"] not in (INVALID, NEWER)]
    known = next((c for c in status.get("conditions", []) if c["type"] == problem.kind), None)
    condition = {
        "type": problem.kind,
        "status": "True",
        "reason": problem.kind,
        "message": problem.words[:1024],
        "lastTransitionTime": known["lastTransitionTime"] if known else rfc3339(now),
    }
    return {
        **status,
        "phase": status.get("phase", "Pending"),
        "message": f"{problem.kind}: {problem.words}"[:1024],
        "conditions": [*conditions, condition],
        "observedGeneration": generation,
    }


def let_go(problem: Problem, now: float) -> LedgerEntry:
    """What is told when such a job is deleted: nobody can say how its checkpoints are to be cleaned up."""
    return LedgerEntry(
        kind="cleanup", at=now, id="unusable", message=f"checkpoints stay: {problem.kind}: {problem.words}"
    )
