"""Asking why containers are not created: for a namespace at once, seldom, and beside the looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aurl_operator.backends.kubernetes.cache import Cache, Entry
from aurl_operator.backends.kubernetes.client import api as client
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.errors import ForbiddenError
from aurl_operator.backends.kubernetes.observe import mounts
from aurl_operator.backends.kubernetes.observe.mounts import AGAIN_SECONDS, Mounts
from aurl_operator.core.names import rfc3339
from aurl_operator.queue import Key
from tests.unit.operator.kubernetes.small_server import SmallServer

LATER = 10_000.0
"""Seconds after which a namespace may be asked again, however slow this machine is."""

WORDS = "MountVolume.SetUp failed: persistentvolumeclaim not found"


class Room:
    """Some jobs of one namespace with a pod each, scheduled a minute ago."""

    def __init__(self, server: SmallServer, api: client.Api, jobs: int) -> None:
        self.server, self.cache = server, Cache(())
        self.heard: list[Key] = []
        self.denied: list[tuple[str, str]] = []
        self.keys = [("music", f"job-{n}") for n in range(jobs)]
        for namespace, name in self.keys:
            metadata = {"namespace": namespace, "name": name, "uid": name, "resourceVersion": "1"}
            self.cache.put_job({"metadata": metadata})
            self.pod(name)
        self.mounts = Mounts(api, self.cache, self.heard.append, self._deny)

    def pod(self, job: str, **status: Any) -> None:
        at = rfc3339(time.time() - 60)
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at}
        status = {"phase": "Pending", "conditions": [scheduled], **status}
        metadata = {"namespace": "music", "name": f"{job}-0", "uid": f"{job}-pod", "resourceVersion": "2"}
        entry = self.cache.entries["music", job]
        entry.pods[f"{job}-pod"] = {"metadata": metadata, "spec": {}, "status": status}

    async def _deny(self, entry: Entry, error: ForbiddenError) -> None:
        self.denied.append((entry.uid, error.right))

    def event(self, job: str, reason: str, message: str = WORDS) -> None:
        body = {"metadata": {"name": f"{job}.{reason}"}, "involvedObject": {"uid": f"{job}-pod"}}
        path = f"{paths.events('music')}/{job}.{reason}"
        self.server.put(path, {**body, "reason": reason, "message": message})

    @property
    def asked(self) -> int:
        return sum(path.endswith("/events") for _, path in self.server.asked)


def within(jobs: int, story: Callable[[Room], Awaitable[None]]) -> None:
    async def run() -> None:
        server = SmallServer()
        async with server.client() as api:
            await story(Room(server, api, jobs))

    asyncio.run(run())


def test_one_question_answers_for_a_whole_namespace() -> None:
    async def story(room: Room) -> None:
        room.event("job-7", "FailedMount")
        room.event("job-9", "BackOff", "of no interest")
        await room.mounts.look(time.time())
        assert room.asked == 1, "expected one question, however many pods are late"
        assert room.heard == [("music", "job-7")], "expected a look at the one of which there is news"
        assert room.cache.entries["music", "job-7"].mounts == {"job-7-pod": WORDS}
        await room.mounts.look(time.time())
        assert room.asked == 1, "expected the namespace to be let be"
        await room.mounts.look(time.time() + LATER)
        assert room.asked == 2 and len(room.heard) == 1, "expected no look without news"

    within(50, story)


def test_pods_that_are_not_late_are_not_asked_about() -> None:
    async def story(room: Room) -> None:
        room.pod("job-0", phase="Running")
        waiting = {"state": {"waiting": {"reason": "ImagePullBackOff"}}}
        room.pod("job-1", containerStatuses=[waiting])
        just = {"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(time.time())}
        room.pod("job-2", conditions=[just])
        await room.mounts.look(time.time())
        assert room.asked == 0, "expected no question where nothing is late, or the pod says why"

    within(3, story)


def test_a_silent_server_is_asked_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "PATIENCE_SECONDS", 1.0)

    async def story(room: Room) -> None:
        room.cache.entries["music", "job-0"].mounts = {"job-0-pod": WORDS}
        room.server.silent = ("/events",)
        now = time.time()
        await room.mounts.look(now)
        known = room.cache.entries["music", "job-0"].mounts
        assert known == {"job-0-pod": WORDS}, "expected what was known to stay"
        await room.mounts.look(now + AGAIN_SECONDS + 1)
        assert room.asked == 1, "a question took a second: expected the next after twenty"
        room.server.silent = ()
        await room.mounts.look(now + LATER)
        assert room.asked == 2
        known = room.cache.entries["music", "job-0"].mounts
        assert known == {}, "expected words that are told no more to go"

    within(1, story)


def test_a_right_that_is_missing_is_told_of_each_job_that_waits() -> None:
    async def story(room: Room) -> None:
        room.server.forbidden = (("GET", "/events"),)
        await room.mounts.look(time.time())
        assert [uid for uid, _ in room.denied] == ["job-0", "job-1"]

    within(2, story)
