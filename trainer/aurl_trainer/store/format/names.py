"""How objects are named: a listing alone tells what there is, and what no longer counts.

    generations/g000002-5f3a9c01.json                        a world has taken generation 2
    generations/g000002-5f3a9c01.from-start.json             ... and began at the beginning, or:
    generations/g000002-5f3a9c01.from-v000006-s00000100-g000001-be61f0aa.json    ... resumed from that save
    manifests/v000007-s00000120-g000002-5f3a9c01.json        the seventh save, of step 120, by that generation
    packs/v000007-s00000120-g000002-5f3a9c01/rank-0000.pack  its tensors; rank-0000-1.pack: more of them
    packs/v000007-s00000120-g000002-5f3a9c01/rank-0001.json  what rank 1 has to tell before the commit

Every object is written once and never again. The nonce tells two worlds apart that took the same number at
the same instant; the one with the greater nonce is the later one, for everybody.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GENERATIONS = "generations"
MANIFESTS = "manifests"
PACKS = "packs"

_START = "start"
_NONCE = r"[0-9a-f]{8}"
_CHECKPOINT = re.compile(rf"v(\d{{6,}})-s(\d{{8,}})-g(\d{{6,}})-({_NONCE})")
_GENERATION = re.compile(rf"g(\d{{6,}})-({_NONCE})(?:\.from-([a-z0-9-]+))?\.json")


@dataclass(frozen=True, order=True)
class GenerationId:
    """One formed world. Later worlds are greater."""

    number: int
    nonce: str

    @classmethod
    def after(cls, others: Iterable[GenerationId]) -> GenerationId:
        """A new generation, later than all `others`."""
        return cls(max((o.number for o in others), default=0) + 1, secrets.token_hex(4))

    def __str__(self) -> str:
        return f"g{self.number:06d}-{self.nonce}"


@dataclass(frozen=True)
class CheckpointName:
    """One save. `number` only grows; `step` counts finished optimizer steps."""

    number: int
    step: int
    generation: GenerationId

    def __str__(self) -> str:
        return f"v{self.number:06d}-s{self.step:08d}-{self.generation}"

    @classmethod
    def parse(cls, text: str) -> CheckpointName | None:
        """The name in `text`; None if it is none."""
        found = _CHECKPOINT.fullmatch(text)
        if found is None:
            return None
        return cls(int(found[1]), int(found[2]), GenerationId(int(found[3]), found[4]))

    @property
    def age(self) -> tuple[GenerationId, int]:
        """Sort key: later saves are greater."""
        return (self.generation, self.number)

    @property
    def manifest(self) -> str:
        """Name of its manifest."""
        return f"{MANIFESTS}/{self}.json"

    @property
    def folder(self) -> str:
        """Name of the folder of its packs."""
        return f"{PACKS}/{self}"

    def pack(self, rank: int, part: int = 0) -> str:
        """Name of one of a rank's packs: most have one, those with much to write several."""
        more = f"-{part}" if part else ""
        return f"{self.folder}/rank-{rank:04d}{more}.pack"

    def piece(self, rank: int) -> str:
        """Name of what a rank tells rank 0 about its packs, until the commit."""
        return f"{self.folder}/rank-{rank:04d}.json"


@dataclass(frozen=True)
class Fence:
    """What the folder of generations says about one: whether it has settled, and which save it resumed from.

    `resumed` None: from the start. A generation that has not settled voids nothing yet, but already keeps
    earlier ones from writing.
    """

    id: GenerationId
    settled: bool = False
    resumed: CheckpointName | None = None

    @property
    def object(self) -> str:
        """Name of the object that says so."""
        settled = f".from-{self.resumed or _START}" if self.settled else ""
        return f"{GENERATIONS}/{self.id}{settled}.json"

    @classmethod
    def parse(cls, name: str) -> Fence | None:
        """The fence that a name in the folder stands for; None for any other file."""
        found = _GENERATION.fullmatch(name)
        if found is None:
            return None
        resumed = CheckpointName.parse(found[3]) if found[3] else None
        if resumed is None and found[3] not in (None, _START):
            return None
        return cls(GenerationId(int(found[1]), found[2]), found[3] is not None, resumed)

    def voids(self, name: CheckpointName) -> bool:
        """Whether `name` is an earlier generation's save that this one did not build on."""
        if not self.settled or self.id <= name.generation:
            return False
        if self.resumed is None:
            return True
        return name.step > self.resumed.step or name.age > self.resumed.age


def is_void(name: CheckpointName, fences: Iterable[Fence]) -> bool:
    """Whether a later generation resumed from before this save: then it is no part of the run's history."""
    return any(f.voids(name) for f in fences)


def not_void(names: Sequence[CheckpointName], fences: Iterable[Fence]) -> list[CheckpointName]:
    """Those of `names` that are not void, in their order: as `is_void` of each, but in one walk.

    From the latest generation to the first: of all that later ones resumed from, the smallest step and the
    earliest save decide.
    """
    later = sorted((f for f in fences if f.settled), key=lambda f: f.id)
    step: float = math.inf
    age: tuple[GenerationId, int] | None = None
    void = set()
    for name in sorted(names, key=lambda n: n.generation, reverse=True):
        while later and later[-1].id > name.generation:
            resumed = later.pop().resumed
            if resumed is None:
                step = -1
            else:
                step = min(step, resumed.step)
                age = resumed.age if age is None else min(age, resumed.age)
        if name.step > step or (age is not None and name.age > age):
            void.add(name)
    return [n for n in names if n not in void]


def left_behind(names: Sequence[CheckpointName], fences: Sequence[Fence]) -> dict[CheckpointName, Fence]:
    """Those of `names` that are void, each with the first generation that did not build on it."""
    counting = set(not_void(names, fences))
    voiding = {n: [f for f in fences if f.voids(n)] for n in names if n not in counting}
    return {n: min(found, key=lambda f: f.id) for n, found in voiding.items()}


def is_fenced(generation: GenerationId, fences: Iterable[Fence]) -> GenerationId | None:
    """The latest generation after `generation`, if there is one: then `generation` may not write."""
    latest = max((f.id for f in fences), default=generation)
    return latest if latest > generation else None
