"""Ranks that talk over nccl: a world of two that loses one.

nccl refuses two ranks on one GPU of one host, so each agent here says that it is a host of its own. Between
two GPUs nccl goes other ways (NVLink, shared memory); here it is the network.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aurl_trainer.contract import Env, ExitCode, RunFile
from aurl_trainer.monitor.records import read_records
from bench.chaos.job import job
from bench.chaos.judge import differences, result, trace
from tests.integration.agent.conftest import Agents, eventually

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


class World:
    """Two agents of one run, each a node, and their store."""

    def __init__(self, folder: Path, music: Path, **engine: Any) -> None:
        self.run = folder
        folder.mkdir()
        file = job(
            folder, music,
            nodes=2, steps=120, engine={"device": "cuda", **engine}, samples={"count": 0},
        )  # fmt: skip
        experiment = yaml.safe_load(file.read_text())["spec"]["training"]
        experiment["data"]["cache"] = str(folder.parent / "cache")
        self._experiment = json.dumps(experiment)
        self._store = Agents(folder)
        self._store.host_store()
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """The agent of node `name`."""
        env = {
            **os.environ,
            Env.EXPERIMENT: self._experiment,
            Env.RUN_DIR: str(self.run),
            Env.RUN_ID: "nccl",
            Env.NODE: name,
            Env.NODE_UID: f"uid-{name}",
            Env.STORE: str(self._store.address),
            "OMP_NUM_THREADS": "1",
            "NCCL_HOSTID": name,
            "NCCL_SOCKET_IFNAME": "lo",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        command = [
            *(sys.executable, "-m", "aurl_trainer.agent", "run", "--nnodes", "2:2", "--nproc-per-node", "1"),
            *("--rdzv-id", "nccl", "--local-addr", "127.0.0.1", "-m", "aurl_trainer", "train"),
        ]
        with (self.run / f"{name}.log").open("ab") as log:
            self.nodes[name] = subprocess.Popen(
                command,
                env={str(k): v for k, v in env.items()},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def logs(self) -> str:
        """The ends of what all agents said."""
        return "\n".join(f"--- {f.name}\n{f.read_text()[-5000:]}" for f in self.run.glob("*.log"))

    def step(self) -> int:
        """The newest step on record."""
        return max((r["step"] for r in read_records(self.run / RunFile.RECORDS, ("step",))), default=0)

    def reaches(self, step: int) -> None:
        """Waits for a step."""
        try:
            eventually(f"step {step}", lambda: self.step() >= step)
        except BaseException:
            print(self.logs())
            raise

    def ends_well(self) -> None:
        """Waits until both agents have ended, and well."""
        codes = {name: node.wait(150) for name, node in self.nodes.items()}
        assert set(codes.values()) == {ExitCode.OK}, f"{codes}\n{self.logs()}"

    def close(self) -> None:
        """Kills what is left."""
        for node in self.nodes.values():
            if node.poll() is None:
                node.kill()
                node.wait()
        self._store.stop()


@pytest.fixture
def worlds(tmp_path: Path, music: Path) -> Iterator[Any]:
    made: list[World] = []

    def make(name: str, **engine: Any) -> World:
        made.append(World(tmp_path / name, music, **engine))
        return made[-1]

    yield make
    for world in made:
        world.close()


def backend(run: Path) -> str:
    first, *_ = read_records(run / RunFile.RECORDS, ("setup",))
    return str(first["versions"]["Between ranks"])


@pytest.mark.parametrize("engine", [{}, {"reproducibility": "exact", "threads": 1}], ids=["world", "exact"])
def test_a_world_that_loses_a_node_equals_an_undisturbed_one(worlds: Any, engine: dict[str, Any]) -> None:
    calm = worlds("calm", **engine)
    for name in ("a", "b"):
        calm.start(name)
    calm.ends_well()
    assert backend(calm.run) == "nccl"

    hard = worlds("hard", **engine)
    for name in ("a", "b"):
        hard.start(name)
    hard.reaches(20)
    os.killpg(hard.nodes["b"].pid, signal.SIGKILL)
    began = time.monotonic()
    hard.nodes["b"].wait()
    hard.start("b")
    hard.reaches(hard.step() + 10)
    print(f"{time.monotonic() - began:.1f} s from the loss until ten more steps")
    hard.ends_well()
    assert trace(hard.run).generations == 2
    assert differences((trace(calm.run), result(calm.run)), (trace(hard.run), result(hard.run))) == []
