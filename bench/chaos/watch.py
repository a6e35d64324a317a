"""Looks at a run from outside, in milliseconds: what it has written since the last look.

Only file names, sizes and the ends of records are read, so that a look costs the run next to nothing. Not
here: what the sight means (stages.py), and its processes (victims.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aurl_trainer.contract import RunFile
from aurl_trainer.monitor.record_files import RecordFile
from aurl_trainer.store.format.names import GENERATIONS, MANIFESTS, PACKS, CheckpointName, Fence
from aurl_trainer.store.location.disk import whole_name
from bench.chaos.stages import Sight
from bench.chaos.victims import Household

JUST = 0.02
"""Seconds for which something has just gone."""


class Tail:
    """Whole lines that were appended to a rank's records, in all their parts, since the last call."""

    def __init__(self, folder: Path, first: RecordFile) -> None:
        self._folder = folder
        self._part = first
        self._at = 0

    def records(self) -> Iterator[dict[str, Any]]:
        """New records; none while no file is there. A torn line is passed over when others follow it."""
        while True:
            over = (self._folder / self._part.next.name).exists()  # asked before this one is read to its end
            yield from self._appended()
            if not over:
                return
            self._part, self._at = self._part.next, 0

    def _appended(self) -> Iterator[dict[str, Any]]:
        try:
            with (self._folder / self._part.name).open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    yield found


class Watch:
    """The sights of one run directory. Tell `struck` after each strike."""

    def __init__(self, run: Path) -> None:
        self._records = run / RunFile.RECORDS
        self._checkpoints = run / RunFile.CHECKPOINTS
        self._names: dict[str, Any] = {}
        self._tail: Tail | None = None
        self._generation = 0
        self._struck = 0
        self._met: frozenset[int] = frozenset()
        self._sizes: dict[CheckpointName, tuple[int, ...]] = {}
        self._manifests: frozenset[CheckpointName] = frozenset()
        self.saved: set[CheckpointName] = set()
        """Checkpoints whose manifest was there before any later generation, which must therefore find it."""
        self._gone_at = -JUST
        self._world: int | None = None
        self._resumed = self._step = self._evaluated = self._saved = self._furthest = 0

    def struck(self, household: Household) -> None:
        """From now on the run waits for a generation that is later than the newest one."""
        self._struck = max(self._struck, self._newest())
        self._met = frozenset(household.ranks)

    def look(self, household: Household) -> Sight:
        """The run as it is now; of its processes, those in `household` that live."""
        newest = self._newest()
        # Listed at the last look, so before the generations were just now.
        self.saved.update(n for n in self._manifests if n.generation.number == newest)
        if newest != self._generation:
            self._read()  # what the last generation wrote before its end
            self._generation, self._world = newest, None
            self._resumed = self._step = self._evaluated = self._saved = 0
            self._tail = Tail(self._records, RecordFile(newest, 0))
        self._read()
        packs, before = self._packs(), self._sizes
        files = _list(self._checkpoints / MANIFESTS)
        manifests = frozenset(self._named(files))
        if self._manifests - manifests or before.keys() - packs.keys():
            self._gone_at = time.monotonic()
        self._sizes, self._manifests = packs, manifests
        living = household.living_ranks()
        return Sight(
            waiting=newest <= self._struck,
            survivors=len(living & self._met),
            ranks=len(living - self._met),
            generation=newest,
            world=self._world,
            resumed=self._resumed,
            step=self._step,
            furthest=self._furthest,
            evaluated=self._evaluated,
            saved=self._saved,
            packs=packs,
            still=frozenset(n for n, sizes in packs.items() if before.get(n) == sizes),
            manifests=manifests,
            partials=frozenset(self._named(filter(None, map(whole_name, files)))),
            removing=time.monotonic() - self._gone_at < JUST,
        )

    def _newest(self) -> int:
        numbers = []
        for name in _list(self._checkpoints / GENERATIONS):
            if name not in self._names:
                self._names[name] = Fence.parse(name)
            fence = self._names[name]
            if fence is not None:
                numbers.append(fence.id.number)
        return max(numbers, default=0)

    def _read(self) -> None:
        for record in self._tail.records() if self._tail else ():
            kind, step = record.get("kind"), record.get("step")
            if kind == "start":
                self._world, self._resumed = record["world"], record["resumed_from"] or 0
                self._step = self._saved = self._resumed
            elif kind == "audit":
                self._step = step or 0
                self._furthest = max(self._furthest, self._step)
            elif kind == "evaluation":
                self._evaluated = step or 0
            elif kind == "save":
                self._saved = step or 0

    def _named(self, manifests: Iterable[str]) -> Iterator[CheckpointName]:
        for name in manifests:
            found = self._parsed(name.removesuffix(".json")) if name.endswith(".json") else None
            if found is not None:
                yield found

    def _parsed(self, name: str) -> CheckpointName | None:
        if name not in self._names:
            self._names[name] = CheckpointName.parse(name)
        found = self._names[name]
        return found if isinstance(found, CheckpointName) else None

    def _packs(self) -> dict[CheckpointName, tuple[int, ...]]:
        found = {}
        for folder in _list(self._checkpoints / PACKS):
            name = self._parsed(folder)
            if name is not None:
                with contextlib.suppress(FileNotFoundError):
                    inside = sorted(os.scandir(self._checkpoints / PACKS / folder), key=lambda e: e.name)
                    found[name] = tuple(e.stat().st_size for e in inside if e.name.endswith(".pack"))
        return found


def _list(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - looked at hundreds of times a second
    except FileNotFoundError:
        return []
