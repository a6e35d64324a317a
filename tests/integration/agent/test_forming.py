"""The second in which a world forms: one node knows of it already, another looks only once a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistStoreError
from torch.distributed.elastic.rendezvous.api import RendezvousParameters

from aurl_trainer.agent.beats import State
from aurl_trainer.agent.board import connect, listen
from aurl_trainer.agent.pulse import Pulse
from aurl_trainer.agent.rendezvous import RENDEZVOUS_DEFAULTS, Rendezvous
from tests.integration.agent.conftest import PATIENCE, eventually


@pytest.fixture(autouse=True)
def own_store_for_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every agent asks of torch."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")


@pytest.fixture
def store() -> Iterator[TCPStore]:
    server = listen("127.0.0.1", 0)
    yield server
    del server


def _node(
    store: TCPStore,
    name: str,
    nodes: tuple[int, int],
    wait: Callable[[], object] = lambda: None,
    timeout: float = PATIENCE,
) -> Rendezvous:
    """A node's handler, with a connection of its own. `wait` is called before each look at the store; ranks
    go by `name`."""
    # Other nodes must not take this one for dead while a test holds it up.
    conf = RENDEZVOUS_DEFAULTS | {"keep_alive_interval": 60}
    client = connect(f"127.0.0.1:{store.port}", timeout)
    parameters = RendezvousParameters("c10d", "unused", "test", *nodes, name, **conf)

    def noticed() -> bool:
        wait()
        return False

    return Rendezvous.create(client, parameters, noticed)


def _joins_and_sleeps(
    store: TCPStore, name: str, nodes: tuple[int, int], pool: ThreadPoolExecutor
) -> tuple[Future[Any], threading.Event]:
    """A node that is on the list, and does not look at it again before the event."""
    on_list, asleep, wake = threading.Event(), threading.Event(), threading.Event()

    def wait() -> None:
        if on_list.is_set():
            asleep.set()
            wake.wait(PATIENCE)

    joined = pool.submit(_node(store, name, nodes, wait).next_rendezvous)
    watcher = _node(store, "watcher", nodes)

    def listed() -> bool:
        watcher.formed()
        return any(member.startswith(f"{name}_") for member in watcher.members)

    eventually(f"{name} is on the list", listed)
    on_list.set()
    assert asleep.wait(PATIENCE)
    return joined, wake


def test_a_node_that_left_after_the_world_was_made_leaves_no_gap_in_its_ranks(store: TCPStore) -> None:
    with ThreadPoolExecutor(1) as pool:
        joined, wake = _joins_and_sleeps(store, "b", (1, 2), pool)
        leaver = _node(store, "a", (1, 2))
        info = leaver.next_rendezvous()
        assert (info.rank, info.world_size) == (0, 2), "the other one is rank 1 of 2"
        leaver.leave()
        wake.set()
        with pytest.raises(DistStoreError, match="left while the world formed"):
            joined.result(PATIENCE)


def test_a_world_is_never_smaller_than_the_job_allows(store: TCPStore) -> None:
    with ThreadPoolExecutor(1) as pool:
        joined, wake = _joins_and_sleeps(store, "a", (2, 2), pool)
        leaver = _node(store, "b", (2, 2), timeout=3.0)
        with pytest.raises(DistStoreError):
            leaver.next_rendezvous()  # it waits for the address that rank 0 does not tell
        leaver.leave()
        wake.set()
        with pytest.raises(DistStoreError, match="left while the world formed"):
            joined.result(PATIENCE)


def test_who_left_a_world_or_fell_silent_is_gone_from_it(store: TCPStore) -> None:
    first, second = _node(store, "a", (2, 2)), _node(store, "b", (2, 2))
    with ThreadPoolExecutor(2) as pool:
        for joined in [pool.submit(first.next_rendezvous), pool.submit(second.next_rendezvous)]:
            joined.result(PATIENCE)
    assert first.gone(0, 2) == set()
    second.leave()
    assert second.left == (0, 1), "as node 1 of the first world"
    eventually("the other one hears of it", lambda: not first.num_nodes_waiting() and first.gone(0, 2))
    assert first.gone(0, 2) == {1}
    first.leave()
    first.leave()
    assert first.left is None, "it was on no list any more"
    assert first.gone(0, 2) == {0, 1}, "that world is over"


def _pulse(store: TCPStore, name: str) -> Pulse:
    return Pulse(connect(f"127.0.0.1:{store.port}", PATIENCE), "test", name, 0.5)


def test_a_node_that_says_nothing_in_its_world_is_unmet_until_it_declines(store: TCPStore) -> None:
    pulse, other = _pulse(store, "a"), _pulse(store, "b")
    pulse.enter(0, 0, 2, range(0, 1), 2)
    assert not pulse.news().unmet, "there was no time for it yet"
    eventually("the other one is unmet", lambda: pulse.news(fresh=True).unmet == {1})
    assert pulse.news().trouble is None, "it may only be slow"
    other.decline(0, 1, "told to leave")
    news = pulse.news(fresh=True)
    assert not news.unmet
    assert "told to leave" in (news.trouble or "")


def test_a_node_that_was_in_a_world_does_not_decline_it(store: TCPStore) -> None:
    pulse, other = _pulse(store, "a"), _pulse(store, "b")
    pulse.enter(0, 0, 2, range(0, 1), 2)
    other.enter(0, 1, 2, range(1, 2), 2)
    other.leave(State.LEFT, "agreed")
    other.decline(0, 1, "told to leave")
    news = pulse.news(fresh=True)
    assert (news.trouble, news.departed) == (None, "agent 1 on b has left agreed")
