"""Asking nodes for progress over real sockets: what tells that a node is in reach, and what does not."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.cache import GAP_SECONDS, Cache, Entry
from aurl_operator.backends.kubernetes.observe import progress
from aurl_operator.backends.kubernetes.observe.progress import Poller, Reply, _answer, _connections, interval
from aurl_operator.core.policies import hang
from aurl_trainer.contract import Phase, Progress
from aurl_trainer.monitor.progress import ProgressServer

NOW = 1_000_000.0


@contextlib.contextmanager
def listening(backlog: int) -> Iterator[tuple[int, socket.socket]]:
    """A port on which nobody accepts."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(backlog)
        yield server.getsockname()[1], server


def ask(port: int) -> Reply:
    async def once() -> Reply:
        timeout = aiohttp.ClientTimeout(total=0.5)
        async with aiohttp.ClientSession(timeout=timeout, trace_configs=[_connections()]) as session:
            return await _answer(session, "127.0.0.1", port)

    return asyncio.run(once())


def test_a_node_that_answers_is_in_reach() -> None:
    told = Progress(rank=0, world=1, generation=1, phase=Phase.STEP, step=3, total_steps=9, at=NOW)
    with ProgressServer(port=0, host="127.0.0.1") as server:
        server.update(told)
        assert server.port is not None
        assert ask(server.port) == Reply(reached=True, progress=told)


def test_a_newer_sign_of_life_is_taken_of_the_same_world_only() -> None:
    told = Progress(
        rank=0, world=1, generation=1, phase=Phase.STEP, step=3, total_steps=9, at=NOW, alive_at=NOW
    )
    entry = Entry({"metadata": {}})
    progress._take(entry, told)
    alive = dataclasses.replace(told, alive_at=NOW + 60)
    progress._take(entry, alive)
    assert entry.progress == alive
    progress._take(entry, dataclasses.replace(told, at=NOW - 5, alive_at=NOW + 90))
    assert entry.progress == alive, "a rank of an older world that still runs says nothing of this one"


def test_a_node_that_is_frozen_is_in_reach() -> None:
    with listening(backlog=8) as (port, _):
        assert ask(port) == Reply(reached=True), "expected its kernel's connection to count"


def test_a_node_on_which_nobody_listens_is_in_reach() -> None:
    with listening(backlog=1) as (port, server):
        server.close()
        assert ask(port) == Reply(reached=True), "expected the refusal to count"


def test_a_node_from_which_nothing_comes_is_out_of_reach() -> None:
    with listening(backlog=0) as (port, _), contextlib.ExitStack() as queue:
        for _ in range(4):  # as if packets were dropped: the queue of the port is full
            client = queue.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        assert ask(port) == Reply(reached=False)


def test_reach_has_a_gap_only_when_questions_went_astray_for_long() -> None:
    entry = Entry({"metadata": {}})
    assert entry.reached(NOW) and entry.reached_since == NOW
    assert not entry.reached(NOW + GAP_SECONDS) and entry.reached_since == NOW
    later = NOW + 2 * GAP_SECONDS + 1
    assert entry.reached(later) and entry.reached_since == later, "expected the time before not to count"


@pytest.mark.parametrize("silent", [0, 1, 100])
def test_the_pause_between_two_questions_is_no_gap(silent: int) -> None:
    entry = Entry({"metadata": {}}, silent=silent)
    assert 1.2 * interval(entry, jobs=5000) < GAP_SECONDS < hang.MARGIN


def test_questions_under_way_end_with_the_poller(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {names.ROLE: "node"}
    pod = {"metadata": {"labels": labels}, "status": {"phase": "Running", "podIP": "127.0.0.1"}}
    cache = Cache(())
    parsed: Any = SimpleNamespace(spec=SimpleNamespace(training=object()))
    cache.entries["music", "bach"] = Entry({"metadata": {}}, parsed=parsed, pods={"uid": pod})

    async def story() -> None:
        poller = asyncio.create_task(Poller(cache, lambda key: None).run())
        await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) > 2, "expected a question to be under way"
        poller.cancel()
        await asyncio.gather(poller, return_exceptions=True)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"expected nothing to be asked any more, found {left}"

    with listening(backlog=8) as (port, _):  # connected, and never answered
        monkeypatch.setattr(progress, "_answer", partial(_answer, port=port))
        asyncio.run(story())
