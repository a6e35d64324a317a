"""What a node's fork server imports is what its ranks need, and initialises no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from aurl_trainer.contract import RANK_MODULES, Env
from bench.chaos.job import job, write_music

LOADED_AFTERWARDS = """
import importlib, os, runpy, sys
for module in sys.argv[1].split(","):
    importlib.import_module(module)
before, leave = set(sys.modules), os._exit

def end(code):
    print("LOADED", *(set(sys.modules) - before), flush=True)
    leave(code)

os._exit = end
sys.argv = ["aurl_trainer", "train"]
runpy.run_module("aurl_trainer", run_name="__main__", alter_sys=True)
"""

NO_GPU_TOUCHED = """
import importlib, sys
import torch

def touched(*_):
    raise AssertionError("CUDA would be initialised")

torch.cuda.is_available, torch.cuda.device_count, torch.cuda._lazy_init = lambda: True, lambda: 1, touched
for module in sys.argv[1].split(","):
    importlib.import_module(module)
"""


def test_a_rank_imports_nothing_heavy_after_the_fork(tmp_path: Path) -> None:
    path = job(tmp_path, write_music(tmp_path / "music", 6), nodes=1, steps=2, seed=1)
    training = yaml.safe_load(path.read_text())["spec"]["training"]

    def train(run: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", LOADED_AFTERWARDS, RANK_MODULES], cwd=tmp_path,
            env={**os.environ, Env.EXPERIMENT: json.dumps(training), Env.RUN_DIR: str(tmp_path / run)},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return set(done.stdout.rpartition("LOADED")[2].split())

    train("prepares")  # a node has its music before it joins: the packages that read it are not counted
    loaded = {m for m in train("resumes") if m.startswith(("aurl_trainer", "torch.", "miditok", "sympy"))}
    light = {"aurl_trainer.commands.prepare", "aurl_trainer.commands.purge", "torch.profiler._cupti_monitor"}
    assert loaded <= light


def test_no_gpu_is_initialised_before_the_fork() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_GPU_TOUCHED, RANK_MODULES], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
