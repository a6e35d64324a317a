"""Names, times and reproducible chance: what several rules need and nothing decides.

Not here: names of Kubernetes objects, which begin with the job's (backends/kubernetes).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from aurl_operator.api.recovery import Backoff
from aurl_operator.core.observed import Role


def process_name(role: Role, index: int, attempt: int) -> str:
    """`worker-1-0`, `store-0-2`: unique within a job for ever."""
    return f"{node_name(role, index)}-{attempt}"


def node_name(role: Role, index: int) -> str:
    """`worker-1`: the same for all attempts."""
    return f"{'worker' if role is Role.NODE else role.value}-{index}"


def slot(role: Role, index: int) -> str:
    """Key of `Memory.attempts`."""
    return f"{role.value}/{index}"


def rfc3339(at: float) -> str:
    """Seconds since the epoch as Kubernetes writes times, whole seconds."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def chance(text: str) -> float:
    """A number in [0, 1) that depends on `text` alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def delay(backoff: Backoff, nth: int, uid: str) -> float:
    """Seconds to wait before the `nth` restart in a row (from 1), up to a fifth less, drawn from `uid`."""
    exponent = min(nth - 1, 64)
    full = min(float(backoff.max_seconds), backoff.initial_seconds * backoff.factor**exponent)
    return full * (1 - 0.2 * chance(f"{uid}/{nth}"))
