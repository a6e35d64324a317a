"""A pod that the API server would not create: whether that may change, in words for people."""

from __future__ import annotations

from aurl_operator.backends.kubernetes.client.errors import ApiError, ForbiddenError, InvalidError
from aurl_operator.core.observed import Refusal, Waiting, WaitingReason
from aurl_operator.core.plan import Start

_POLICIES = ("admission webhook ", "ValidatingAdmissionPolicy ")
"""With these words the API server tells what somebody's policy denies, by default as 400 and 422: policies
change, so it may be allowed later."""


def refusal(
    start: Start, error: ApiError, now: float, generation: int | None = None, resume: str | None = None
) -> Refusal:
    """The refusal of `start` by the API server, for the job of this generation and this token to resume."""
    return Refusal(start.role, start.index, start.attempt, _waiting(error), now, generation, resume)


def _waiting(error: ApiError) -> Waiting:
    words = error.message
    if isinstance(error, ForbiddenError):
        if "exceeded quota" in words:
            return Waiting(WaitingReason.QUOTA, words)
        if "violates PodSecurity" in words:
            return Waiting(WaitingReason.REFUSED, f"{words} (see docs/security.md)")
        if "PriorityClass" in words:
            return Waiting(
                WaitingReason.REFUSED, f"{words}; create it, or mend spec.scheduling.priorityClass"
            )
        if "is forbidden: User" in words:
            return Waiting(WaitingReason.REFUSED, f"the operator may not do this: {words}")
    if isinstance(error, InvalidError) and not any(policy in words for policy in _POLICIES):
        return Waiting(WaitingReason.REFUSED, words, final=True)
    return Waiting(WaitingReason.REFUSED, words)
