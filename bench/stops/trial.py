"""One end at one operation. Not here: what may be left after it (judge.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from bench.stops.history import Past, past
from bench.stops.judge import problems
from bench.stops.works import WORKS, Told
from tests.unit.trainer.store.faulty import Died, FaultyFileSystem


@dataclass(frozen=True)
class Trial:
    """What ended where, and what was wrong afterwards (empty: nothing)."""

    seed: int
    work: str
    operation: int
    kind: str
    problems: tuple[str, ...]

    def __str__(self) -> str:
        where = f"seed {self.seed}, {self.work}, operation {self.operation} ({self.kind})"
        return f"{where}: {'; '.join(self.problems) or 'nothing lost'}"


def trials(seed: int, works: Iterable[str] = WORKS, lag: int = 0) -> Iterator[Trial]:
    """Every end of these works on the past of this seed; after each third the recovery ends as well.

    With a `lag` listings show what was there so many operations ago.
    """
    made = past(seed)
    for name in works:
        operation = 0
        while True:
            trial = _trial(made, seed, name, operation, lag)
            if trial is None:
                break
            yield trial
            operation += 1


def _trial(made: Past, seed: int, name: str, at: int, lag: int) -> Trial | None:
    """None: the work has fewer operations than that."""
    FaultyFileSystem.restore(made.objects)
    FaultyFileSystem.lag = lag
    told = Told(made.acknowledged)
    kind = _until(at, lambda: WORKS[name](made, told))
    if kind is None:
        return None
    if at % 3 == 2:
        # The process that takes over ends as well.
        again = _until((at * 7 + seed) % 5, lambda: WORKS["open"](made, told))
        kind += f", then {again} while opening" if again else ""
    return Trial(seed, name, at, kind, tuple(problems(made, name, told)))


def _until(at: int, act: Callable[[], None]) -> str | None:
    """Runs `act` as a process that ends at operation `at`: where it ended, or None if it did not."""
    met: list[str] = []

    def stop(number: int, kind: str, path: str) -> None:
        if number >= at:
            met.append(f"{kind} of {path.removeprefix('/run').strip('/').rpartition('/')[0].split('/v')[0]}")
            raise Died

    FaultyFileSystem.reset(stop, halves=True)
    try:
        act()
    except Died:
        return met[0]
    finally:
        FaultyFileSystem.reset()
    return None
