"""Several requests to a store at a time: each takes a round trip, and few stores take many in one.

Not here: which requests may go together (place.py), reading ahead (format/reading.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait


def several(act: Callable[[str], object], names: Sequence[str], at_once: int) -> None:
    """Calls `act` for each name, `at_once` at a time, in no order.

    After an error no further one begins, and it is raised when those under way have ended.
    """
    if len(names) < 2:
        for name in names:
            act(name)
        return
    with ThreadPoolExecutor(min(at_once, len(names)), thread_name_prefix="checkpoint-several") as pool:
        going: set[Future[object]] = set()
        for name in names:
            if len(going) == at_once:
                going = _some_ended(going)
            going.add(pool.submit(act, name))
        while going:
            going = _some_ended(going)


def _some_ended(going: set[Future[object]]) -> set[Future[object]]:
    """Those that go on when at least one has ended. Raises what one that has ended raised."""
    done, rest = wait(going, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return rest
