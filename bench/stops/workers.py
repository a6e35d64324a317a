"""The trials of many seeds, made by several processes and told in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

from aurl_operator.backends.local.process.kernel import die_with_parent
from bench.stops.trial import Trial, trials


def every_trial(seed: int, workers: int) -> Generator[Trial]:
    """The trials of this seed and of all that follow. Closing it ends the processes."""
    seeds = itertools.count(seed)
    if workers == 1:
        yield from itertools.chain.from_iterable(trials(s) for s in seeds)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=die_with_parent)
    try:
        waiting: deque[Future[list[Trial]]] = deque(
            pool.submit(_of_one, next(seeds)) for _ in range(workers + 1)
        )
        while True:
            yield from waiting.popleft().result()
            waiting.append(pool.submit(_of_one, next(seeds)))
    finally:
        pool.shutdown(cancel_futures=True)


def _of_one(seed: int) -> list[Trial]:
    return list(trials(seed))
