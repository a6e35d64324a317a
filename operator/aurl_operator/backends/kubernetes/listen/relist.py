"""What no watch has told: everything is listed now and then, and held against what is known.

After a gap kopf lists anew and hands on what exists; of what was deleted meanwhile nobody hears. The lists
are of metadata alone and from the API server's own cache, so they cost little and may be older than what is
known: whatever differs is given a moment, then asked for by name, and only that answer counts. Not here:
machines (a pod whose machine is gone is deleted by the cluster), what follows (controller.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.act.hands import Hands
from aurl_operator.backends.kubernetes.cache import Cache
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ApiError, ForbiddenError, NotFoundError
from aurl_operator.backends.kubernetes.listen.by_name import ByName
from aurl_operator.backends.kubernetes.listen.hearing import JOBS, PODS, Hearing
from aurl_operator.backends.kubernetes.observe.process import job_name
from aurl_operator.queue import Key, Queue

log = logging.getLogger(__name__)

Json = dict[str, Any]

FIRST_SECONDS = 10.0
"""After the start, by when the watches are connected."""

EVERY_SECONDS = 60.0

AGAIN_SECONDS = 5.0
"""After an end that could not be confirmed, before everything is listed."""

SETTLE_SECONDS = 3.0
"""How long the watches may take to tell what a list shows."""


@dataclass(frozen=True)
class _Kind:
    """One kind of object: where it is listed, and what the cache makes of it."""

    name: str
    path: Callable[[str | None], str]
    query: Mapping[str, str]
    held: Callable[[str | None], list[Json]]
    """What is known to exist in a namespace, or in all."""
    holds: Callable[[Json], bool]
    """Whether this very one is known to exist."""
    lacks: Callable[[Json], bool]
    """Whether a listed one is new to the cache."""
    confirm: Callable[[Json], Awaitable[Key | None]]
    """Asks for it by name and tells the cache; the job's key if that was news."""


@dataclass
class _Differing:
    """What the lists show otherwise than the cache."""

    gone: list[Json] = field(default_factory=list)
    """Known, and not listed."""
    news: list[Json] = field(default_factory=list)
    """Listed, and not known so."""
    answered: bool = True
    """Whether each list that was asked for came."""


class Relist:
    """Holds lists against the cache. For one event loop."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        queue: Queue,
        hands: Hands,
        hearing: Hearing,
        namespaces: Iterable[str | None],
    ) -> None:
        """`namespaces`: those that are served; None: all."""
        self._api = api
        self._cache = cache
        self._queue = queue
        self._by_name = ByName(api, cache, hands)
        self._namespaces = tuple(namespaces)
        self._hearing = hearing
        self._soon = asyncio.Event()
        selected = {"labelSelector": names.SELECTOR}
        self._kinds = (
            _Kind(JOBS, paths.jobs, {}, cache.held_jobs, cache.holds_job, cache.lacks_job, self._job),
            _Kind(PODS, paths.pods, selected, cache.held_pods, cache.holds_pod, cache.lacks_pod, self._pod),
        )

    async def run(self) -> None:
        """Until cancelled."""
        patience = FIRST_SECONDS
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._soon.wait()
                await asyncio.sleep(AGAIN_SECONDS)
            self._soon.clear()
            patience = EVERY_SECONDS
            try:
                await self.look()
            except Exception:
                log.exception("what the watches have missed cannot be told: unexpected error")

    async def look(self) -> None:
        """Lists everything once, and puts right what is known otherwise."""
        differing = [(kind, await self._differing(kind)) for kind in self._kinds]
        if any(found.gone or found.news for _, found in differing):
            await asyncio.sleep(SETTLE_SECONDS)
        for kind, found in differing:
            held = {_uid(item) for item in kind.held(None)}
            suspects = [item for item in found.gone if _uid(item) in held]
            suspects += [item for item in found.news if kind.lacks(item)]
            for item in suspects:
                await self._put_right(kind, item)
            if found.answered:
                self._hearing.compared(kind.name)

    async def _differing(self, kind: _Kind) -> _Differing:
        found = _Differing()
        for namespace in self._namespaces:
            # What comes while the list is made is not expected in it.
            held = kind.held(namespace)
            try:
                listed = await self._api.metadata(kind.path(namespace), **kind.query)
            except ApiError as error:
                log.warning("%s cannot be listed: %s", kind.name, error.message)
                found.answered = False
                continue
            uids = {_uid(item) for item in listed}
            found.gone += [item for item in held if _uid(item) not in uids]
            found.news += [item for item in listed if kind.lacks(item)]
        return found

    async def _put_right(self, kind: _Kind, item: Json) -> None:
        metadata = item["metadata"]
        where = f"{metadata['namespace']}/{metadata['name']}"
        try:
            key = await kind.confirm(item)
        except ApiError as error:
            log.warning("%s %s cannot be read: %s", kind.name, where, error.message)
            return
        if key is not None:
            log.info("%s %s: no watch has told of its last change", kind.name, where)
            self._queue.add(key)
            if kind.holds(item):
                # A watch that is connected again tells what there is, not what there was.
                self._hearing.missed(kind.name)

    async def _job(self, job: Json) -> Key | None:
        metadata = job["metadata"]
        try:
            now = await self._api.get(paths.job(metadata["namespace"], metadata["name"]))
        except NotFoundError:
            return self._cache.drop_job(job) if self._cache.holds_job(job) else None
        key, news = self._cache.put_job(now)
        return key if news else None

    async def _pod(self, pod: Json) -> Key | None:
        now = await self._by_name.seen(pod)
        if now is None:
            return self._cache.drop_pod(pod, time.time()) if self._cache.holds_pod(pod) else None
        return self._cache.put_pod({"kind": "Pod", **now})

    async def really_gone(self, pod: Json) -> bool:
        """Whether a pod that left the watch is gone. If it only lost its label, it gets it back.

        Where the API server cannot say so now, it is asked again with the next lists, which come soon.
        """
        if pod["metadata"].get("deletionTimestamp") is not None or job_name(pod) is None:
            return True
        try:
            return await self._by_name.seen(pod) is None
        except ApiError as error:
            if isinstance(error, ForbiddenError):
                await self._by_name.denied(pod, error)
            else:
                log.warning("pod %s left the watch: %s", pod["metadata"]["name"], error.message)
            self._soon.set()
            return False


def _uid(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["uid"])
