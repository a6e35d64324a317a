"""What a pod's agent runs before it joins others is there, and prepares what a rank would prepare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from aurl_operator.api.load import parse_object
from aurl_operator.core.observed import Role
from aurl_operator.core.plan import Start
from aurl_operator.launch.pod.manifest import PodDefaults, pod
from aurl_trainer.contract import Env, ExitCode
from bench.chaos.job import job, write_music


def _environment(folder: Path) -> dict[str, Any]:
    """Of a node's pod, whose job trains on MIDI files in `folder`."""
    document = yaml.safe_load(job(folder, folder / "music", nodes={"min": 1, "max": 2}, steps=2).read_text())
    document["metadata"] |= {"namespace": "ns", "uid": "u1"}
    document["spec"]["checkpoint"] = {"uri": "s3://bucket/run"}
    start = Start(Role.NODE, 0, 0, 1, "worker-0-0", "run-1", 1, 2, "192.0.2.1:29400")
    made = pod(parse_object(document), start, PodDefaults(image="x"))
    return {e["name"]: e.get("value") for e in made["spec"]["containers"][0]["env"]}


def _run(command: list[str], environment: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    assert command[0] == "python"
    names = (Env.EXPERIMENT, Env.ALIVE)
    wanted = {**os.environ, **{name: environment[name] for name in names if name in environment}}
    return subprocess.run(
        [sys.executable, *command[1:]], env=wanted, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(name="environment")
def _given(tmp_path: Path) -> dict[str, Any]:
    write_music(tmp_path / "music", 6)
    return _environment(tmp_path)


def test_a_node_prepares_the_music_of_its_job(environment: dict[str, Any], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    done = _run(json.loads(environment[Env.PREPARE]), {**environment, Env.ALIVE: str(mark)})
    assert done.returncode == 0, done.stderr
    assert mark.exists(), "the agent must learn that it gets on"
    assert str(tmp_path / "cache") in done.stdout, f"expected it where ranks look for it, found {done.stdout}"


def test_music_that_cannot_be_read_is_one_line(environment: dict[str, Any], tmp_path: Path) -> None:
    for file in (tmp_path / "music").iterdir():
        file.unlink()
    done = _run(json.loads(environment[Env.PREPARE]), environment)
    assert done.returncode == ExitCode.DATA
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr, done.stderr
