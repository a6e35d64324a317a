"""The queue: each key once, work before news, namespaces in turn, nothing lost while it is at work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from aurl_operator.queue import NEWS_EVERY, Lane, Queue


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def drained(fill: Callable[[Queue], None], count: int) -> list[str]:
    async def run() -> list[str]:
        queue = Queue(Clock(), most=16)
        fill(queue)
        found = []
        for _ in range(count):
            key = await asyncio.wait_for(queue.get(), 1)
            queue.done(key)
            found.append("/".join(key))
        return found

    return asyncio.run(run())


def test_a_key_that_is_added_twice_is_looked_at_once() -> None:
    async def run() -> None:
        queue = Queue(Clock(), most=16)
        queue.add(("a", "x"))
        queue.add(("a", "x"), Lane.NEWS)
        await queue.get()
        assert len(queue) == 0, "expected one entry for one key"

    asyncio.run(run())


def test_a_key_that_is_added_while_at_work_is_looked_at_again() -> None:
    async def run() -> None:
        queue = Queue(Clock(), most=16)
        queue.add(("a", "x"))
        key = await queue.get()
        queue.add(key)
        assert len(queue) == 0, "expected it not to be at work twice"
        queue.done(key)
        assert await asyncio.wait_for(queue.get(), 1) == key

    asyncio.run(run())


def test_namespaces_take_turns() -> None:
    def fill(queue: Queue) -> None:
        for number in range(3):
            queue.add(("many", str(number)))
        queue.add(("few", "0"))

    assert drained(fill, 4)[:2] == ["many/0", "few/0"]


def test_a_namespace_that_takes_long_leaves_workers_to_others() -> None:
    async def run() -> None:
        queue = Queue(Clock(), most=2)
        for number in range(4):
            queue.add(("sick", str(number)))
        held = [await queue.get(), await queue.get()]
        third = asyncio.create_task(queue.get())
        await asyncio.sleep(0.01)
        assert not third.done(), "expected two of one namespace at work, no third"
        queue.add(("well", "0"))
        assert await asyncio.wait_for(third, 1) == ("well", "0")
        fourth = asyncio.create_task(queue.get())
        await asyncio.sleep(0.01)
        queue.done(held[0])
        assert await asyncio.wait_for(fourth, 1) == ("sick", "2"), "expected it to go on when there is room"
        queue.add(held[1])
        queue.done(held[1])
        got = {await asyncio.wait_for(queue.get(), 1)}
        assert got == {("sick", "3")}, "expected those that waited before one that is looked at again"

    asyncio.run(run())


def test_neither_lane_starves() -> None:
    def fill(queue: Queue) -> None:
        for number in range(2 * NEWS_EVERY):
            queue.add(("work", str(number)))
            queue.add(("news", str(number)), Lane.NEWS)

    first = drained(fill, 2 * NEWS_EVERY)
    assert first[0].startswith("work") or first[1].startswith("work")
    assert sum(name.startswith("news") for name in first) == 2


def test_news_that_becomes_work_moves_up() -> None:
    def fill(queue: Queue) -> None:
        queue.add(("a", "news"), Lane.NEWS)
        queue.add(("b", "work"))
        queue.add(("a", "news"), Lane.WORK)

    assert set(drained(fill, 2)) == {"a/news", "b/work"}


def test_an_earlier_time_stands() -> None:
    async def run() -> None:
        clock = Clock()
        queue = Queue(clock, most=16)
        queue.add_at(("a", "x"), 5.0)
        queue.add_at(("a", "x"), 9.0)
        clock.now = 5.0
        assert await asyncio.wait_for(queue.get(), 1) == ("a", "x")

    asyncio.run(run())


def test_the_age_is_that_of_the_oldest() -> None:
    clock = Clock()

    async def run() -> float:
        queue = Queue(clock, most=16)
        queue.add(("a", "x"))
        clock.now = 3.0
        queue.add(("a", "y"))
        return queue.age()

    assert asyncio.run(run()) == 3.0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from(Lane)), max_size=30))
def test_whatever_is_added_in_whatever_lane_comes_once(added: list[tuple[str, str, Lane]]) -> None:
    """Also a key that goes from news to work when it was the only one of its namespace there."""

    def fill(queue: Queue) -> None:
        for namespace, name, lane in added:
            queue.add((namespace, name), lane)

    wanted = {f"{namespace}/{name}" for namespace, name, _ in added}
    assert sorted(drained(fill, len(wanted))) == sorted(wanted)


def test_the_last_news_of_a_namespace_that_becomes_work_leaves_nothing_behind() -> None:
    def fill(queue: Queue) -> None:
        queue.add(("a", "x"), Lane.NEWS)
        queue.add(("b", "y"), Lane.NEWS)
        queue.add(("a", "x"), Lane.WORK)

    assert drained(fill, 2) == ["a/x", "b/y"]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_one_key_wakes_one_waiter() -> None:
    async def run() -> None:
        queue = Queue(Clock(), most=16)
        waiting = [asyncio.create_task(queue.get()) for _ in range(8)]
        await settled()
        queue.add(("a", "x"))
        queue.add(("a", "y"))
        await settled()
        got = [task.result() for task in waiting if task.done()]
        assert sorted(got) == [("a", "x"), ("a", "y")]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(run())


def test_a_waiter_that_is_woken_and_cancelled_at_once_ends_and_leaves_its_key_to_another() -> None:
    async def run() -> None:
        queue = Queue(Clock(), most=16)
        first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
        await settled()
        queue.add(("a", "x"))
        first.cancel()
        await settled()
        assert first.cancelled(), "expected a cancellation to be heard whatever else happens"
        assert second.done() and second.result() == ("a", "x"), "expected no key to wait beside a waiter"

    asyncio.run(run())


def test_a_time_that_comes_is_heard_whoever_waits_since_when() -> None:
    async def run() -> None:
        queue = Queue(time.monotonic, most=16)
        queue.add_at(("a", "early"), time.monotonic() + 0.05)
        waiting = [asyncio.create_task(queue.get()) for _ in range(2)]
        await settled()
        queue.add(("a", "now"))  # taken by the one that waited first, and with it the first timer
        queue.add_at(("a", "earlier"), time.monotonic() + 0.01)
        done, _ = await asyncio.wait(waiting, timeout=5)
        found = sorted(task.result()[1] for task in done)
        assert found == ["earlier", "now"], f"found {found}"
        assert await asyncio.wait_for(queue.get(), 5) == ("a", "early")

    asyncio.run(run())
