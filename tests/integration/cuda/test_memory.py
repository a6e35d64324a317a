"""A GPU without memory for a step: told as what it is, by the rank's record and the agent's exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aurl_trainer.contract import Cause, Env, ExitCode, Termination
from bench.chaos.job import job

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def test_a_batch_that_no_gpu_holds_ends_as_out_of_memory(tmp_path: Path, music: Path) -> None:
    # A million tokens at once: a layer keeps tens of GB of them, the host less than one.
    file = job(
        tmp_path,
        music,
        nodes=1,
        steps=3,
        model={"dim": 1024, "layers": 12, "heads": 8},
        engine={"device": "cuda", "batch": {"global_batch": 32768, "shards": 1}},
    )
    experiment = yaml.safe_load(file.read_text())["spec"]["training"]
    told = tmp_path / "termination"
    env = {
        **os.environ,
        Env.EXPERIMENT: json.dumps(experiment),
        Env.RUN_DIR: str(tmp_path / "run"),
        Env.NODE: "worker-0",
        Env.TERMINATION_LOG: str(told),
        "OMP_NUM_THREADS": "1",
    }
    (tmp_path / "run").mkdir()
    command = [
        *(sys.executable, "-m", "aurl_trainer.agent", "run", "--nnodes", "1", "--nproc-per-node", "1"),
        *("-m", "aurl_trainer", "train"),
    ]
    ended = subprocess.run(
        command, env={str(k): v for k, v in env.items()}, capture_output=True, text=True, timeout=240
    )
    record = Termination.from_json(told.read_text())
    assert record.cause == Cause.OUT_OF_MEMORY, record
    assert ended.returncode == ExitCode.OUT_OF_MEMORY, ended.stdout + ended.stderr
    assert "OutOfMemoryError" in (record.traceback or "")
