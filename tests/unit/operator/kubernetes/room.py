"""One job, an operator that looks when it is asked to, and a small API server that fails when it is to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.act.hands import Hands, Pace
from aurl_operator.backends.kubernetes.cache import Cache
from aurl_operator.backends.kubernetes.client import api as client
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.controller import Controller
from aurl_operator.backends.kubernetes.observe.mounts import Mounts
from aurl_operator.launch.pod.manifest import PodDefaults
from aurl_operator.queue import Key, Queue
from aurl_trainer.contract import Progress
from tests.unit.operator.kubernetes.small_server import SmallServer

KEY = ("music", "bach")
PATH = paths.job(*KEY)
READY = {
    "status": {
        "phase": "Running",
        "podIP": "192.0.2.1",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {"name": names.STORE_CONTAINER, "state": {"running": {"startedAt": "2026-01-31T12:00:00Z"}}}
        ],
    }
}
STRANGE = Progress(0, 1, 1, "step", step="abc", total_steps=9, at=time.time() + 60.0)  # type: ignore[arg-type]
WRONG = {"spec": {"restartPolicy": "Always"}}


class Told(Queue):
    """Tells when a look is over."""

    def __init__(self) -> None:
        super().__init__(time.monotonic, most=16)
        self.over = asyncio.Event()

    def done(self, key: Key) -> None:
        super().done(key)
        self.over.set()


class Room:
    """One job, and an operator that looks when it is asked to."""

    def __init__(self, server: SmallServer, api: client.Api) -> None:
        self.server, self.api = server, api
        self.cache = Cache(())
        self.hands = Hands(api, self.cache, PodDefaults(), Pace(1000.0))
        self._queue = Told()
        self.mounts = Mounts(api, self.cache, self._queue.add, self.hands.denied)
        self._controller = Controller(api, self.cache, self._queue, self.hands, PodDefaults())

    def job(self, *, spec: dict[str, Any] | None = None, **metadata: Any) -> None:
        """Puts the job on the server, over what is there."""
        known = self.server.objects.get(PATH, {"metadata": {"uid": "job", "generation": 0}})
        meta = {**known["metadata"], "name": "bach", "namespace": "music", **metadata}
        meta["generation"] += 1
        wanted = {"image": "x", "command": ["train.py"], **(spec or {})}
        body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": meta, "spec": wanted}
        self.server.put(PATH, {**known, **body})

    async def look(self) -> None:
        """As if an event had told of the job as it is."""
        self.cache.put_job(self.server.objects[PATH])
        await self.look_again()

    async def look_again(self) -> float | None:
        """At what is known."""
        return await self._controller.look(KEY)

    def path(self, pod: dict[str, Any]) -> str:
        """Where a pod lies on the server."""
        return paths.pod(KEY[0], pod["metadata"]["name"])

    def lose(self, pod: dict[str, Any]) -> None:
        """A pod is deleted by somebody."""
        del self.server.objects[self.path(pod)]
        self.cache.drop_pod({"kind": "Pod", **pod}, time.time())

    async def work(self) -> None:
        """One look, as a worker takes it: with what it does about errors."""
        self._queue.over.clear()
        self._queue.add(KEY)
        worker = asyncio.create_task(self._controller.work())
        await self._queue.over.wait()
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    def forget(self) -> None:
        """As by a restart: the job is known as it stands on the server, and nothing else."""
        self.cache.drop_job(self.server.objects[PATH])

    def status(self) -> dict[str, Any]:
        return dict(self.server.objects[PATH].get("status") or {})

    def condition(self, kind: str) -> str | None:
        found = [c["message"] for c in self.status().get("conditions", []) if c["type"] == kind]
        return found[0] if found else None

    def events(self) -> list[str]:
        return [event["reason"] for event in self.server.named("events")]


def within(story: Callable[[Room], Awaitable[None]]) -> None:
    async def run() -> None:
        server = SmallServer()
        async with server.client() as api:
            await story(Room(server, api))

    asyncio.run(run())
