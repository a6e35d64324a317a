"""Why a container is not even created: a volume cannot be mounted, which the kubelet tells in Events only.

Beside the looks, and only where pods have been on a machine for a while without a container. The API server
has no cache of Events: a question costs as much as the namespace has Events, so one answers for all its pods,
and who costs much is asked seldom. Not here: what follows (waiting.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aurl_operator.backends.kubernetes.cache import Cache, Entry
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ApiError, ForbiddenError
from aurl_operator.backends.kubernetes.observe.waiting import scheduled_at
from aurl_operator.queue import Key

log = logging.getLogger(__name__)

LATE_SECONDS = 10.0
"""How long a container may take to be created before it is asked why."""

LOOK_SECONDS = 2.0
"""Between searches for pods that are late."""

AGAIN_SECONDS = 15.0
"""Before a namespace is asked again, at least."""

PATIENCE_SECONDS = 20.0
"""How long one question may take: no look waits for it."""

SHARE = 0.05
"""Of the time, at most, the API server is busy with questions about one namespace."""

WORDS = "type=Warning,reason!=FailedScheduling,involvedObject.kind=Pod"
_REASONS = ("FailedMount", "FailedAttachVolume")


def late(entry: Entry, uid: str, pod: dict[str, Any], now: float) -> bool:
    """Whether a pod has been on a machine for a while without a container, and without a word about why."""
    status = pod.get("status", {})
    if status.get("phase") != "Pending" or uid in entry.vanished:
        return False
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return False
    since = scheduled_at(pod)
    return since is not None and now - since >= LATE_SECONDS


class Mounts:
    """Puts the kubelet's words into `Entry.mounts`. For one event loop."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        heard: Callable[[Key], None],
        denied: Callable[[Entry, ForbiddenError], Awaitable[None]],
    ) -> None:
        """`heard` is told of jobs whose words have changed, `denied` of those that may not be asked about."""
        self._api = api.brief(PATIENCE_SECONDS)
        self._cache = cache
        self._heard = heard
        self._denied = denied
        self._not_before: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look(time.time())
            except Exception:
                log.exception("volumes cannot be asked about: unexpected error")

    async def look(self, now: float) -> None:
        """Asks about each namespace in which pods are late and that has not just been asked about."""
        waiting: dict[str, list[Key]] = {}
        for key, entry in self._cache.entries.items():
            if any(late(entry, uid, pod, now) for uid, pod in entry.pods.items()):
                waiting.setdefault(key[0], []).append(key)
        began = time.monotonic()
        self._not_before = {name: at for name, at in self._not_before.items() if at > now}
        for namespace, keys in waiting.items():
            if namespace not in self._not_before:
                await self._ask(namespace, keys, now + time.monotonic() - began)

    async def _ask(self, namespace: str, keys: list[Key], now: float) -> None:
        began = time.monotonic()
        words: dict[str, str] | None = None
        refused: ForbiddenError | None = None
        try:
            events = await self._api.list(paths.events(namespace), fieldSelector=WORDS)
            told = [event for event in events if event.get("reason") in _REASONS]
            words = {event["involvedObject"].get("uid", ""): event.get("message", "") for event in told}
        except ForbiddenError as error:
            refused = error
        except ApiError as error:
            log.warning("events of %s cannot be read: %s", namespace, error.message)
        took = time.monotonic() - began
        self._not_before[namespace] = now + took + max(AGAIN_SECONDS, took / SHARE)
        for key in keys:
            entry = self._cache.entries.get(key)
            if entry is None:
                continue
            if refused is not None:
                await self._denied(entry, refused)
            elif words is not None and entry.mounts != (found := _of(entry, words)):
                entry.hear_mounts(found)
                self._heard(key)


def _of(entry: Entry, words: dict[str, str]) -> dict[str, str]:
    return {uid: words[uid] for uid in entry.pods if words.get(uid)}
