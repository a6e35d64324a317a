"""The operator while it works: a client, what is known, the queue, its workers, and who asks for progress.

Everything is listed before the first look, so that no job is taken for one without pods. Not here: events of
the watches (app.py), what they have missed (listen/), which replica works (lease.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection

from aurl_operator import metrics
from aurl_operator.api import names
from aurl_operator.backends.kubernetes.act.hands import Hands, Pace
from aurl_operator.backends.kubernetes.cache import Cache
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ApiError
from aurl_operator.backends.kubernetes.controller import RESYNC_SECONDS, Controller
from aurl_operator.backends.kubernetes.listen.hearing import Hearing
from aurl_operator.backends.kubernetes.listen.namespaces import AGAIN_SECONDS, listed
from aurl_operator.backends.kubernetes.listen.relist import Relist
from aurl_operator.backends.kubernetes.observe.machine import NOTICE_TAINTS
from aurl_operator.backends.kubernetes.observe.mounts import Mounts
from aurl_operator.backends.kubernetes.observe.progress import Poller
from aurl_operator.launch.pod.manifest import PodDefaults
from aurl_operator.queue import Lane, Queue
from aurl_operator.settings import Settings

log = logging.getLogger(__name__)

GAUGE_SECONDS = 5.0
CANCEL_AGAIN_SECONDS = 1.0
SPARE = 4
"""Of so many workers, one more is there for the other namespaces when one has all that it may have."""


class Runtime:
    """All parts of a working operator, put together."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        left: Collection[str] = (),
        anew: Callable[[], None] = lambda: None,
        broken: Callable[[], None] = lambda: None,
    ) -> None:
        """`left`: namespaces that could not be served; `anew` is called when one of them can be. `broken` is
        called when a part of the work has ended by an error of ours: it must not go on without that part."""
        self.settings = settings
        self._left = tuple(left)
        self._anew, self._broken = anew, broken
        self.cache = Cache(NOTICE_TAINTS if settings.notice_taints is None else settings.notice_taints)
        self.queue = Queue(time.monotonic, most=settings.workers)
        self.working = False
        self.hearing = Hearing(time.monotonic)
        self._api = api
        defaults = PodDefaults(image=settings.default_image)
        hands = Hands(api, self.cache, defaults, Pace(settings.creates_per_second))
        self._controller = Controller(api, self.cache, self.queue, hands, defaults)
        served: tuple[str | None, ...] = settings.namespaces or (None,)
        self.relist = Relist(api, self.cache, self.queue, hands, self.hearing, served)
        self._poller = Poller(self.cache, lambda key: self.queue.add(key, Lane.NEWS))
        self._mounts = Mounts(api, self.cache, self.queue.add, hands.denied)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Lists what there is, then begins to work."""
        started = time.monotonic()
        metrics.NOT_SERVED.set(len(self._left))
        namespaces: tuple[str | None, ...] = self.settings.namespaces or (None,)
        for namespace in namespaces:
            async for pods in self._api.pages(paths.pods(namespace), labelSelector=names.SELECTOR):
                for pod in pods:
                    self.cache.put_pod({"kind": "Pod", **pod})
            async for jobs in self._api.pages(paths.jobs(namespace)):
                for job in jobs:
                    key, _ = self.cache.put_job(job)
                    self.queue.add(key)
        if self.settings.machines:
            # After the pods: one that is on no machine of this list has lost it.
            for node in await self._api.list(paths.nodes()):
                self.cache.put_machine(node)
            self.cache.machines_listed()
        log.info("%d jobs listed in %.1f s", len(self.cache.entries), time.monotonic() - started)
        workers = self.settings.workers + max(1, self.settings.workers // SPARE)
        work = [self._controller.work() for _ in range(workers)]
        beside = (self._poller.run(), self._mounts.run(), self.relist.run(), self._watch())
        self._tasks = [asyncio.create_task(job) for job in (*work, *beside)]
        for task in self._tasks:
            task.add_done_callback(self._ended)
        self.working = True

    async def stop(self) -> None:
        """Ends all work; what is half done is found and finished by whoever works next."""
        self.working = False
        left = set(self._tasks)
        while left:
            for task in left:
                task.cancel()
            # Libraries may swallow one cancellation: it is asked for until it is heard.
            _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def ready(self) -> str | None:
        """None if all is well, else what is not."""
        return self.hearing.trouble() if self.working else None

    def _ended(self, task: asyncio.Task[None]) -> None:
        """All of them go on until they are cancelled."""
        if not task.cancelled() and self.working:
            log.error("a part of the operator has failed: work stops", exc_info=task.exception())
            self._broken()

    async def _watch(self) -> None:
        """The one timer: gauges, and now and then a look at every job."""
        resynced = asked = time.monotonic()
        while True:
            await asyncio.sleep(GAUGE_SECONDS)
            metrics.QUEUE_AGE.set(self.queue.age())
            metrics.QUEUE_DEPTH.set(len(self.queue))
            phases = Counter(
                entry.memory.phase.value for entry in self.cache.entries.values() if entry.memory is not None
            )
            metrics.JOBS.clear()
            for phase, count in phases.items():
                metrics.JOBS.labels(phase).set(count)
            if time.monotonic() - resynced > RESYNC_SECONDS:
                resynced = time.monotonic()
                self._controller.resync()
            if self._left and time.monotonic() - asked > AGAIN_SECONDS:
                asked = time.monotonic()
                await self._ask_again()

    async def _ask_again(self) -> None:
        """Whether a namespace that was left out can be served by now: watches begin with the process."""
        for namespace in self._left:
            with contextlib.suppress(ApiError):
                await listed(self._api, namespace)
                log.info("namespace %s can be served: starting anew", namespace)
                return self._anew()
