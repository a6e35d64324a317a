"""Why a container is not even created: a volume cannot be mounted, which the kubelet tells in Events only.

Asked for pods alone that have been on a machine for a while without a container. Not here: what follows
(waiting.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

from aurl_operator.backends.kubernetes.cache import Entry
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ApiError, ForbiddenError
from aurl_operator.backends.kubernetes.observe.waiting import scheduled_at

LATE_SECONDS = 10.0
"""How long a container may take to be created before it is asked why."""

AGAIN_SECONDS = 30.0
_REASONS = ("FailedMount", "FailedAttachVolume")


def due(entry: Entry, uid: str, pod: dict[str, Any]) -> float | None:
    """When to ask about this pod; None if there is nothing to ask."""
    since = scheduled_at(pod)
    status = pod.get("status", {})
    if since is None or status.get("phase") != "Pending" or uid in entry.vanished:
        return None
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return None
    asked = entry.mounts.get(uid)
    return since + LATE_SECONDS if asked is None else asked[0] + AGAIN_SECONDS


async def ask(api: Api, entry: Entry, now: float) -> ForbiddenError | None:
    """Puts the kubelet's words into `entry.mounts` for pods that are due. Returns why it may not read any.

    A look waits for this: `api` is a brief one, all are asked at once, and who gets no answer asks later.
    """
    refused = None
    for uid in [uid for uid in entry.mounts if uid not in entry.pods]:
        del entry.mounts[uid]
    asked = {
        uid: api.list(paths.events(pod["metadata"]["namespace"]), fieldSelector=f"involvedObject.uid={uid}")
        for uid, pod in entry.pods.items()
        if (at := due(entry, uid, pod)) is not None and at <= now
    }
    answers = await asyncio.gather(*asked.values(), return_exceptions=True)
    for uid, answer in zip(asked, answers, strict=True):
        words = ""
        if isinstance(answer, ForbiddenError):
            refused = answer
        elif isinstance(answer, ApiError):
            words = entry.mounts.get(uid, (0.0, ""))[1]
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found = [e.get("message", "") for e in answer if e.get("reason") in _REASONS]
            words = found[-1] if found else ""
        entry.mounts[uid] = (now, words)
    return refused
