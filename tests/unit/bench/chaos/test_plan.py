"""The plan of kills: the same for a seed, every stage and victim often enough, in a possible order."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.chaos.plan import PER_RUN, Mode, Victim, plan
from bench.chaos.stages import Stage


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("seed", range(20))
def test_a_plan_has_all_kills_and_hits_every_stage_and_victim(mode: Mode, seed: int) -> None:
    kills = [kill for run in plan(seed, 200, mode) for kill in run.kills]
    assert [k.number for k in kills] == list(range(1, 201))
    stages, victims = Counter(k.stage for k in kills), Counter(k.victim for k in kills)
    assert min(stages[s] for s in Stage) >= 10, f"a stage is hardly hit: {stages}"
    assert min(victims[v] for v in Victim) >= 10, f"a victim is hardly hit: {victims}"


def test_a_plan_depends_on_nothing_but_its_arguments() -> None:
    assert plan(1, 50, Mode.WORLD) == plan(1, 50, Mode.WORLD)
    assert plan(1, 50, Mode.WORLD) != plan(2, 50, Mode.WORLD)
    seeds = [run.seed for seed in (1, 2) for run in plan(seed, 50, Mode.WORLD)]
    assert len(seeds) == len(set(seeds)), "each run trains with a seed of its own"


@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_struck_who_cannot_be_there(seed: int) -> None:
    for run in plan(seed, 200, Mode.WORLD):
        before = None
        for kill in run.kills:
            if kill.stage is Stage.LEAVING:
                assert before is not None, "before the first loss nobody leaves"
                assert before.victim is not Victim.RUN, "nobody is left of a run that was struck itself"
                assert before.stage is not Stage.RENDEZVOUS, "no rank lived when the loss before struck"
            assert not (kill.stage is Stage.RENDEZVOUS and kill.victim is Victim.RANK)
            before = kill


@pytest.mark.parametrize("kills", [1, 3, PER_RUN, PER_RUN + 1, 199])
def test_each_run_is_struck_after_its_last_step_once_and_last(kills: int) -> None:
    for run in plan(3, kills, Mode.WORLD):
        assert [k.stage is Stage.END for k in run.kills] == [False] * (len(run.kills) - 1) + [True]


def test_an_exact_run_goes_through_all_worlds_by_kills_of_the_run() -> None:
    for run in plan(1, 200, Mode.EXACT):
        assert [run.world, *(k.world for k in run.kills if k.world)] == [1, 2, 3, 2, 1]
        assert {k.victim for k in run.kills if k.world} == {Victim.RUN}
        world = run.world
        for kill in run.kills:
            assert not (world == 1 and kill.victim is Victim.STORE), "a run of one node has no store"
            world = kill.world or world


def test_the_world_stays_without_exact_arithmetic() -> None:
    assert {run.world for run in plan(1, 200, Mode.WORLD)} == {2}
    assert {k.world for run in plan(1, 200, Mode.WORLD) for k in run.kills} == {None}
