"""A run that is killed again and again equals one that never was: samples, losses, weights, to the bit.

Five kills with seeded pauses: of a rank, of whole nodes, of `aurl run` itself, all by SIGKILL, and a
preemption notice. On one process and on two (min = max). Many more, in every stage of a save:
`python -m bench.chaos`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.chaos.campaign import Leader, Struck
from bench.chaos.job import job, write_music
from bench.chaos.judge import damage, differences, result, trace
from bench.chaos.losses import forgotten, lives
from bench.chaos.plan import Kill, Victim
from bench.chaos.stages import Rhythm, Stage
from bench.chaos.victims import leftovers

RHYTHM = Rhythm(steps=240, save_every=5, evaluate_every=20)
VICTIMS = (Victim.RANK, Victim.NODE, Victim.NOTICE, Victim.RUN, Victim.NODE)


def lead(file: Path, run: Path, nodes: int, kills: Sequence[Kill]) -> list[Struck]:
    leader = Leader(
        file, run, RHYTHM,
        number=1, nodes=nodes, elastic=False, deadline=math.inf, patience=240.0, tell=lambda _: None,
    )  # fmt: skip
    leader.lead(kills)
    assert leader.led.left == (), "the run ended before its last kill: give it more steps"
    return leader.led.struck


@pytest.mark.processes
@pytest.mark.timeout(900)
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_run_killed_five_times_equals_an_undisturbed_one(tmp_path: Path, nodes: int) -> None:
    music = write_music(tmp_path / "music")
    calm, hard = tmp_path / "calm", tmp_path / "hard"
    file = job(
        tmp_path,
        music,
        nodes={"min": nodes, "max": nodes},
        steps=RHYTHM.steps,
        checkpoint={"every": RHYTHM.save_every},
        monitor={"evaluate_every": RHYTHM.evaluate_every},
    )
    lead(file, calm, nodes, ())

    chance = random.Random(f"kills on {nodes}")
    kills = [
        Kill(
            number, Stage.STEP, victim, chance.uniform(0, 0.05), chance.randint(2, 8), chance.getrandbits(16)
        )
        for number, victim in enumerate(chance.sample(VICTIMS, len(VICTIMS)))
    ]
    struck = lead(file, hard, nodes, kills)
    assert [s.victim for s in struck] == [k.victim for k in kills]
    assert leftovers(hard) == [], "no process outlives a run"

    expected, found = trace(calm), trace(hard)
    assert expected.generations == 1
    assert found.generations > len(kills), "each loss should have made a new generation"
    assert differences((expected, result(calm)), (found, result(hard))) == []
    assert damage(hard) == []
    assert forgotten(lives(hard)) == [], "no kill costs more than the steps since the last save"
