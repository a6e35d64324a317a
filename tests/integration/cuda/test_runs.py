"""`aurl run` on a GPU: to the bit the same after losses, in each precision, and in each world in exact mode.

Worlds of two nodes share the GPU here, so that their ranks talk over gloo; nccl is in test_nccl.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aurl_operator.backends.local.rundir import read_ledger
from aurl_trainer.contract import RunFile
from aurl_trainer.engine.resume.certificate import Verdict
from aurl_trainer.monitor.records import read_records
from bench.chaos.campaign import Leader
from bench.chaos.job import job
from bench.chaos.judge import damage, differences, noticed, result, trace
from bench.chaos.losses import forgotten, lives
from bench.chaos.plan import Kill, Victim
from bench.chaos.stages import Rhythm, Stage

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]

RHYTHM = Rhythm(steps=150, save_every=5, evaluate_every=50)
EXACT = {"reproducibility": "exact", "threads": 1}


def write_job(folder: Path, music: Path, nodes: int, **engine: Any) -> Path:
    """A job on CUDA with all that keeps a state: dropout, averaged weights; and music is sampled."""
    return job(
        folder,
        music,
        nodes={"min": nodes, "max": nodes},
        steps=RHYTHM.steps,
        engine={"device": "cuda", "average": {"kind": "ema", "decay": 0.9}, **engine},
        checkpoint={"every": RHYTHM.save_every},
        monitor={"evaluate_every": RHYTHM.evaluate_every},
        samples={"every": RHYTHM.evaluate_every, "count": 1, "tokens": 24, "top_p": 0.9},
    )


def lead(file: Path, run: Path, kills: Sequence[Kill] = (), nodes: int = 1) -> None:
    leader = Leader(
        file, run, RHYTHM,
        number=1, nodes=nodes, elastic=False, deadline=math.inf, patience=240.0, tell=lambda _: None,
    )  # fmt: skip
    leader.lead(kills)
    assert leader.led.left == (), "the run ended before its last kill: give it more steps"


def strikes(*victims: Victim) -> list[Kill]:
    """One after the other, each a few steps after the run goes on."""
    return [Kill(n, Stage.STEP, victim, 0.0, 7, n) for n, victim in enumerate(victims)]


def records(run: Path, kind: str) -> list[Any]:
    return list(read_records(run / RunFile.RECORDS, (kind,)))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_that_is_struck_equals_an_undisturbed_one(tmp_path: Path, music: Path, precision: str) -> None:
    file = write_job(tmp_path, music, 1, precision=precision)
    calm, hard = tmp_path / "calm", tmp_path / "hard"
    lead(file, calm)
    lead(file, hard, strikes(Victim.RANK, Victim.NOTICE, Victim.NODE))

    (setup,) = records(calm, "setup")
    assert setup["versions"]["Device"] != "cpu"
    assert trace(hard).generations == 4, "each loss should have made a new generation"
    assert differences((trace(calm), result(calm)), (trace(hard), result(hard))) == []
    assert damage(hard) == []
    assert forgotten(lives(hard)) == [], "no kill costs more than the steps since the last save"
    assert noticed(read_ledger(hard)) == []
    verdicts = [c["verdict"] for c in records(hard, "certificate")]
    # After the notice nothing is done again.
    assert verdicts == [Verdict.EQUAL, Verdict.NOTHING, Verdict.EQUAL], verdicts


def test_exact_worlds_of_one_and_two_give_the_same_bits(tmp_path: Path, music: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    lead(write_job(tmp_path, music, 1, **EXACT), one)
    lead(write_job(tmp_path, music, 2, **EXACT), two, strikes(Victim.NODE), nodes=2)
    first, *_ = records(two, "setup")
    assert first["versions"]["Between ranks"] == "gloo", "two ranks share a GPU here"
    assert set(trace(two).worlds.values()) == {2}
    assert differences((trace(one), result(one)), (trace(two), result(two))) == []


def test_two_ranks_on_one_gpu_go_on_bit_for_bit_after_a_loss(tmp_path: Path, music: Path) -> None:
    file = write_job(tmp_path, music, 2)
    calm, hard = tmp_path / "calm", tmp_path / "hard"
    lead(file, calm, nodes=2)
    lead(file, hard, strikes(Victim.NODE), nodes=2)
    assert differences((trace(calm), result(calm)), (trace(hard), result(hard))) == []
