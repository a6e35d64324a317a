"""One end at one operation, and what is on the store after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aurl_trainer.errors import AurlTrainerError
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from bench.stops.history import URI, Past, checkpointer, metrics, past, same, state_of
from bench.stops.works import WORKS
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


def trials(seed: int, works: Iterable[str] = WORKS) -> Iterator[Trial]:
    """Every end of these works on the past of this seed; after each third the recovery ends as well."""
    made = past(seed)
    for name in works:
        operation = 0
        while True:
            trial = _trial(made, seed, name, operation)
            if trial is None:
                break
            yield trial
            operation += 1


def _trial(made: Past, seed: int, name: str, at: int) -> Trial | None:
    """None: the work has fewer operations than that."""
    FaultyFileSystem.restore(made.objects)
    acknowledged = [made.acknowledged]
    died = _until(at, lambda: WORKS[name](made, acknowledged.append))
    if died is None:
        return None
    kind = died
    if at % 3 == 2:
        # The process that takes over ends as well.
        again = _until((at * 7 + seed) % 5, lambda: WORKS["open"](made, acknowledged.append))
        kind += f", then {again} while opening" if again else ""
    thinned = name == "clean-up"
    return Trial(seed, name, at, kind, tuple(_problems(made, acknowledged[-1], thinned=thinned)))


def _until(at: int, act: object) -> str | None:
    """Runs `act` as a process that ends at operation `at`: where it ended, or None if it did not."""
    met: list[str] = []

    def stop(number: int, kind: str, path: str) -> None:
        if number >= at:
            met.append(f"{kind} of {path.removeprefix('/run/').partition('/')[0]}")
            raise Died

    FaultyFileSystem.reset(stop, halves=True)
    try:
        act()  # type: ignore[operator]
    except Died:
        return met[0]
    finally:
        FaultyFileSystem.reset()
    return None


def _problems(made: Past, acknowledged: int, *, thinned: bool) -> Iterator[str]:
    """What a next process finds wrong: with the newest checkpoint, with all others, and with going on."""
    store = RunStore(Location(URI))
    names = store.valid()
    newest = names[-1].step if names else 0
    if newest < acknowledged and not thinned:
        yield f"step {acknowledged} was acknowledged, and the newest is {newest}"
    if thinned and made.acknowledged and not names:
        yield "no checkpoint is left"
    for name in names:
        yield from verify(store, name).problems
    loaded = state_of(0)
    try:
        saver = checkpointer(made.keep)
        restored = saver.open(loaded).restored
        found = restored.step if restored else 0
        if found != newest:
            yield f"step {found} was loaded in place of {newest}"
        if restored and (restored.damaged or not same(loaded, state_of(newest))):
            yield f"step {newest} was loaded with other bytes"
        saver.save(newest + 1, state_of(newest + 1), {"step": newest + 1}, metrics(newest + 1))
    except AurlTrainerError as error:
        yield f"the run cannot go on: {error}"
        return
    after = RunStore(Location(URI))
    if not after.valid() or after.valid()[-1].step != newest + 1:
        yield "the next save does not count"
    # A newer checkpoint may refer to packs of an older one that is gone.
    needed = {pack.path for name in after.committed() for pack in after.manifest(name).packs}
    left = {n.partition("/")[0] for n in after.location.names("packs")} - {p.split("/")[1] for p in needed}
    if left:
        yield f"packs that no checkpoint needs stay: {sorted(left)}"
    if _partials(after):
        # Half a record of a world that took the same number at the same instant goes with the next world.
        checkpointer(made.keep).open(state_of(0))
        if _partials(after):
            yield f"halves stay: {_partials(after)}"


def _partials(store: RunStore) -> list[str]:
    return [p for folder in ("manifests", "generations") for p in store.location.partials(folder)]
