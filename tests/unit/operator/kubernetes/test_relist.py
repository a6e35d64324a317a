"""Lists held against what is known: what no watch has told is found, and nothing is believed too early."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.client import api as client
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.listen import hearing, relist
from aurl_operator.backends.kubernetes.runtime import Runtime
from aurl_operator.settings import Settings
from tests.unit.operator.kubernetes.small_server import SmallServer
from tests.unit.operator.kubernetes.test_cache import KEY, job, pod

JOB = paths.job(*KEY)
POD = paths.pod("music", "bach-mine")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relist, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(relist, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(client, "TRIES", 1)


def labelled(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "metadata": {**found["metadata"], "labels": {names.MANAGED_BY: names.MANAGER}}}


class Room:
    """A job with a pod, on the server and known to an operator that does not work yet."""

    def __init__(self, server: SmallServer, api: client.Api) -> None:
        self.server = server
        self.runtime = Runtime(api, Settings(namespaces=("music",)))
        self.cache, self.relist = self.runtime.cache, self.runtime.relist
        self.job = server.put(JOB, job("one", 1))
        self.pod = server.put(POD, labelled(pod("mine", "one")))
        self.cache.put_job(self.job)
        self.cache.put_pod(self.pod)
        assert self.known() == ({"mine"}, set())

    def known(self) -> tuple[set[str], set[str]]:
        """UIDs of the pods that are there, and of those that are gone."""
        entry = self.cache.entries[KEY]
        return set(entry.pods) - set(entry.vanished), set(entry.vanished)

    def wanted(self) -> int:
        """Jobs that are to be looked at."""
        return len(self.runtime.queue)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.relist.run())
        yield
        task.cancel()


def within(story: Callable[[Room], Awaitable[None]]) -> None:
    async def run() -> None:
        server = SmallServer()
        async with server.client() as api:
            await story(Room(server, api))

    asyncio.run(run())


async def eventually(what: str, probe: Callable[[], Any]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            while not probe():
                await asyncio.sleep(0.02)
    assert probe(), f"expected that {what}"


def test_nothing_is_asked_for_by_name_when_all_is_as_known() -> None:
    async def story(room: Room) -> None:
        room.server.away = (JOB, POD)
        await room.relist.look()
        assert room.known() == ({"mine"}, set())
        assert not room.wanted(), "expected no look at a job that did not change"

    within(story)


def test_a_pod_that_went_unseen_is_gone() -> None:
    async def story(room: Room) -> None:
        del room.server.objects[POD]
        await room.relist.look()
        assert room.known() == (set(), {"mine"}), "it would count as running for ever"
        assert room.wanted() == 1

    within(story)


def test_a_job_that_went_unseen_is_gone() -> None:
    async def story(room: Room) -> None:
        del room.server.objects[JOB]
        await room.relist.look()
        assert not room.cache.entries
        assert room.wanted() == 1, "expected a last look, which lets go of it"

    within(story)


def test_what_came_or_changed_unseen_is_taken_in() -> None:
    async def story(room: Room) -> None:
        room.server.put(POD, {**room.pod, "status": {"phase": "Succeeded"}})
        room.server.put(paths.pod("music", "bach-other"), labelled(pod("other", "one")))
        room.server.put(
            paths.job("music", "handel"), {"metadata": {**job("two", 1)["metadata"], "name": "handel"}}
        )
        await room.relist.look()
        assert room.cache.entries[KEY].pods["mine"]["status"]["phase"] == "Succeeded"
        assert room.known() == ({"mine", "other"}, set())
        assert ("music", "handel") in room.cache.entries
        assert room.wanted() == 2

    within(story)


def test_a_list_that_is_behind_takes_nothing_away_and_brings_nothing_back() -> None:
    async def story(room: Room) -> None:
        gone = pod("gone", "one", 9)
        room.server.late = {paths.jobs("music"): [], paths.pods("music"): [gone]}
        await room.relist.look()
        assert room.known() == ({"mine"}, set())
        assert not room.wanted()

    within(story)


def test_what_a_watch_tells_while_a_list_is_weighed_stands() -> None:
    async def story(room: Room) -> None:
        del room.server.objects[POD]
        look = asyncio.create_task(room.relist.look())
        await asyncio.sleep(0.05)
        ended = {**room.pod, "status": {"phase": "Failed"}}
        ended["metadata"] = {**ended["metadata"], "resourceVersion": "90"}
        room.cache.put_pod(ended)
        await look
        assert room.known() == (set(), {"mine"})
        assert room.cache.entries[KEY].pods["mine"]["status"]["phase"] == "Failed", "its end was known"

    within(story)


def test_a_namespace_that_cannot_be_listed_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def story(room: Room) -> None:
        room.server.forbidden = (("GET", paths.jobs("music")),)
        del room.server.objects[POD]
        await room.relist.look()
        assert "jobs cannot be listed: " in caplog.text
        assert room.known() == (set(), {"mine"})

    within(story)


def test_an_end_that_could_not_be_confirmed_is_asked_for_again() -> None:
    async def story(room: Room) -> None:
        del room.server.objects[POD]
        room.server.away = (POD,)
        async with room.running():
            assert not await room.relist.really_gone(room.pod)
            assert room.known() == ({"mine"}, set()), "nobody knows"
            room.server.away = ()
            await eventually("it is gone", lambda: room.known() == (set(), {"mine"}))

    within(story)


def test_a_pod_that_lost_its_label_gets_it_back() -> None:
    async def story(room: Room) -> None:
        room.server.put(POD, pod("mine", "one"))
        assert not await room.relist.really_gone(room.pod)
        assert room.server.objects[POD]["metadata"]["labels"] == {names.MANAGED_BY: names.MANAGER}

    within(story)


def test_silence_is_no_trouble_while_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(room: Room) -> None:
        monkeypatch.setattr(hearing, "STALE_SECONDS", 0.0)
        room.runtime.working = True
        assert "nothing heard of " in (room.runtime.ready() or ""), "expected silence alone to be trouble"
        monkeypatch.setattr(hearing, "STALE_SECONDS", 60.0)
        before = room.runtime.hearing.last()
        await room.relist.look()
        assert room.runtime.hearing.last() > before, (
            "expected lists that show nothing new to be a sign of life"
        )
        before = room.runtime.hearing.last()
        room.server.away = ("/pods", "/aurltrainingjobs")
        await room.relist.look()
        assert room.runtime.hearing.last() == before, "expected no sign of life from who does not answer"

    within(story)


def test_a_deaf_watch_is_noticed_however_often_lists_put_things_right() -> None:
    async def story(room: Room) -> None:
        room.server.put(JOB, room.job)
        await room.relist.look()
        before = room.runtime.hearing.last()
        await room.relist.look()
        assert room.runtime.hearing.last() == before, "a job changed, and no event told of it"
        room.runtime.hearing.heard(hearing.JOBS)
        await room.relist.look()
        assert room.runtime.hearing.last() > before

    within(story)


def test_a_deletion_that_nobody_was_told_of_is_no_deafness() -> None:
    """A watch that was away for a while never tells of it, and hears all the same."""

    async def story(room: Room) -> None:
        del room.server.objects[JOB], room.server.objects[POD]
        await room.relist.look()
        assert not room.cache.entries
        before = room.runtime.hearing.last()
        await room.relist.look()
        assert room.runtime.hearing.last() > before

    within(story)
