"""What init containers tell of a pod whose own container has not run: which one failed, which one loops.

They are the template's, or somebody's webhook put them there. Not here: what an exit code means (core).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.observe.times import seconds

UNKNOWN = "ContainerStatusUnknown"
"""The kubelet's word for a container whose true end it never saw."""

Status = Mapping[str, Any]


def failed(status: Status) -> Status | None:
    """The init container that ended a pod before its own container ran; None if none did.

    It is the last that ended: those after it never started, and one beside it is stopped when it has failed.
    """
    if status.get("phase") != "Failed" or _ran(status):
        return None
    for container in reversed(status.get("initContainerStatuses") or []):
        end = (container.get("state") or {}).get("terminated") or {}
        if end.get("exitCode") and end.get("reason") != UNKNOWN:
            found: Status = container
            return found
    return None


def looping(status: Status) -> Status | None:
    """The init container that ends, is started again and ends again, whatever it does just now."""
    for container in status.get("initContainerStatuses") or []:
        ended_before = "terminated" in (container.get("lastState") or {})
        if ended_before and container.get("restartCount") and not container.get("started"):
            found: Status = container
            return found
    return None


def through_at(status: Status) -> float | None:
    """When the last of them ended that has ended; None: none has."""
    ends = [(c.get("state") or {}).get("terminated") or {} for c in status.get("initContainerStatuses") or []]
    return max((at for end in ends if (at := seconds(end.get("finishedAt"))) is not None), default=None)


def words(container: Status, terminated: Status) -> str:
    """Which one it was and how it ended, in one line."""
    reason, told = terminated.get("reason"), str(terminated.get("message") or "").strip()
    how = f"exit code {terminated.get('exitCode')}"
    how = f"{how}, {reason}" if reason not in (None, "Error") else how
    last = told.splitlines()[-1:]
    return ": ".join([f"init container {container['name']}", how, *last])


def _ran(status: Status) -> bool:
    """Whether the pod's own container has ever run, as far as its status tells."""
    mine = [c for c in status.get("containerStatuses") or [] if c.get("name") in names.CONTAINERS]
    states = [c.get(part) or {} for c in mine for part in ("state", "lastState")]
    return any("running" in state or "terminated" in state for state in states)
