"""Whom to kill when: a pure function of the seed.

Every pair of a stage and a victim comes equally often, in an order that the seed decides. Not here: what a
stage looks like (stages.py), and striking (victims.py).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from bench.chaos.stages import Stage


class Mode(StrEnum):
    """What is shown: kills change nothing (`world`: two nodes), or kills and the world's size do not."""

    WORLD = "world"
    EXACT = "exact"


class Victim(StrEnum):
    """What is struck; by SIGKILL unless it says otherwise."""

    RANK = "rank"
    AGENT = "agent"
    NODE = "node"
    """An agent and all that it has started, at once: a machine that vanishes."""
    STORE = "store"
    RUN = "run"
    """`aurl run` itself; the same command is given again."""
    NOTICE = "notice"
    """SIGTERM to an agent: a machine that is taken back."""


WORLDS = {Mode.WORLD: (2,), Mode.EXACT: (1, 2, 3, 2, 1)}
"""Nodes of a run, one after the other."""

PER_RUN = 20
"""Kills of one run; the last of them strikes after its last step."""

_LONGEST = {
    Stage.LEAVING: 0.2,
    Stage.RENDEZVOUS: 1.5,
    Stage.START: 3.0,
    Stage.LOAD: 0.02,
    Stage.STEP: 0.05,
    Stage.EVALUATE: 0.05,
    Stage.END: 1.0,
}
"""Seconds in a stage before it is struck, at most; at once in a save, whose stages last milliseconds."""


@dataclass(frozen=True)
class Kill:
    """One strike: in `stage`, after `seconds` there (a step: once `steps` new ones are done).

    `pick` chooses among several victims of a kind. `world`: how many nodes the run has when it is started
    again, which needs the run itself as a victim; None: as before.
    """

    number: int
    stage: Stage
    victim: Victim
    seconds: float
    steps: int
    pick: int
    world: int | None = None


@dataclass(frozen=True)
class RunPlan:
    """One run: what it trains with, how many nodes it begins with, and its kills in order."""

    number: int
    seed: int
    world: int
    kills: tuple[Kill, ...]


def plan(
    seed: int, kills: int, mode: Mode, *, per_run: int = PER_RUN, most_steps: int = 8
) -> tuple[RunPlan, ...]:
    """`kills` strikes over as many runs as they need; the same for the same arguments, on every machine.

    `most_steps`: a strike at a step waits for at most so many new ones.
    """
    chance = random.Random(f"chaos/{mode}/{seed}")
    deck = _deck(chance)
    runs: list[RunPlan] = []
    numbers = iter(range(1, kills + 1))
    for first in range(0, kills, per_run):
        count = min(per_run, kills - first)
        stages = _possible([next(deck) for _ in range(count - 1)], deck)
        victims_at_end = chance.choice(tuple(Victim))
        drawn = [
            Kill(
                number=next(numbers),
                stage=stage,
                victim=victim,
                seconds=chance.uniform(0, _LONGEST.get(stage, 0.0)),
                steps=chance.randint(1, most_steps),
                pick=chance.getrandbits(16),
            )
            for stage, victim in (*stages, (Stage.END, victims_at_end))
        ]
        worlds = WORLDS[mode]
        run = len(runs) + 1
        runs.append(RunPlan(run, seed * 1000 + run, worlds[0], _through(drawn, worlds)))
    return tuple(runs)


def _deck(chance: random.Random) -> Iterator[tuple[Stage, Victim]]:
    """All pairs that can be, shuffled, again and again."""
    pairs = [
        (stage, victim)
        for stage in Stage
        for victim in Victim
        if stage is not Stage.END and not (stage is Stage.RENDEZVOUS and victim is Victim.RANK)
    ]
    while True:
        yield from chance.sample(pairs, len(pairs))


def _possible(
    drawn: list[tuple[Stage, Victim]], deck: Iterator[tuple[Stage, Victim]]
) -> list[tuple[Stage, Victim]]:
    """The pairs in an order that can happen: when nothing or the run itself was struck, nobody can leave."""
    found = list(drawn)
    for i in range(len(found)):
        bad = _cannot(found, i)
        if bad:
            other = next(
                (j for j in range(i + 1, len(found)) if not _cannot([*found[:i], found[j]], i)), None
            )
            if other is None:
                found[i] = next(p for p in deck if not _cannot([*found[:i], p], i))
            else:
                found[i], found[other] = found[other], found[i]
    return found


def _cannot(pairs: list[tuple[Stage, Victim]], i: int) -> bool:
    if pairs[i][0] is not Stage.LEAVING:
        return False
    before, victim = pairs[i - 1] if i else (Stage.RENDEZVOUS, Victim.RUN)
    return victim is Victim.RUN or before is Stage.RENDEZVOUS


def _through(kills: list[Kill], worlds: tuple[int, ...]) -> tuple[Kill, ...]:
    """The kills, with those among them that begin another world; a run of one node has no store to kill."""
    found = []
    world = worlds[0]
    changes = {round(len(kills) * i / len(worlds)): w for i, w in enumerate(worlds) if i}
    for i, kill in enumerate(kills):
        if i + 1 in changes and i + 1 < len(kills):
            kill = dataclasses.replace(kill, victim=Victim.RUN, world=changes[i + 1])
        elif world == 1 and kill.victim is Victim.STORE:
            kill = dataclasses.replace(kill, victim=Victim.NODE)
        world = kill.world or world
        found.append(kill)
    return tuple(found)
