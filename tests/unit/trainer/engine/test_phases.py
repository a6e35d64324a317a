"""What a rank tells its peers of where it is, from its music to its end: each phase has its own limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
import yaml

from aurl_trainer.contract import Env, Phase
from bench.chaos.job import job, write_music

pytestmark = pytest.mark.processes

_RANK = """
import json
from aurl_trainer.commands import rank
from aurl_trainer.engine.survival.heartbeat import Heartbeat

class Told(Heartbeat):
    def phase(self, phase, step):
        seen.append((phase, step))

seen = []
rank.train(None, Told())
print(json.dumps(seen))
"""


def test_a_rank_tells_that_it_prepares_and_waits_and_measures(tmp_path: Path) -> None:
    file = job(tmp_path, write_music(tmp_path / "music", 6), nodes=1, steps=1, samples={"count": 0})
    experiment = yaml.safe_load(file.read_text())["spec"]["training"]
    env = {
        **os.environ,
        Env.EXPERIMENT: json.dumps(experiment),
        Env.RUN_DIR: str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", _RANK],
        env={str(k): v for k, v in env.items()},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    seen = [(Phase(phase), step) for phase, step in json.loads(done.stdout.splitlines()[-1])]
    stretches = [(phase, step, len(list(group))) for (phase, step), group in groupby(seen)]
    first, second, third = stretches[:3]
    assert first[:2] == (Phase.LOAD, 0) and first[2] > 12, "each piece of music is read and written"
    assert second[:2] == (Phase.SYNC, 0), "it waits for those that still prepare"
    assert third[:2] == (Phase.LOAD, 0)
    measured, waits, end = stretches[-3:]
    assert measured[:2] == (Phase.END, 1) and measured[2] > 6, "each sample is counted"
    assert (waits, end) == ((Phase.SYNC, 1, 1), (Phase.END, 1, 1)), "it waits for rank 0, which measures"
