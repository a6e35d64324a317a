"""A node that joins others prepares first: they train on meanwhile; what goes wrong there harms nobody."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from aurl_trainer.contract import Cause, ExitCode
from tests.integration.agent.conftest import Agents

pytestmark = pytest.mark.processes

_WAITS = (
    "import pathlib, subprocess, sys, time\n"
    "folder = pathlib.Path(sys.argv[1])\n"
    "(folder / 'preparing').touch()\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "while not (folder / 'go').exists():\n"
    "    time.sleep(0.05)\n"
)
"""Prepares until it is let go, and leaves a process behind."""


def _train_alone(agents: Agents, preparation: str = _WAITS) -> None:
    """A job of one or two nodes with one at work; whoever joins then prepares."""
    agents.host_store()
    agents.preparation = [sys.executable, "-c", preparation, str(agents.folder)]
    agents.start("worker-0", "1:2", "loop.py", "400")
    agents.reaches("worker-0", 3, world=1)
    assert not (agents.folder / "preparing").exists(), "the first of a job has nobody to keep from training"
    agents.start("worker-1", "1:2", "loop.py", "400")


def test_the_others_train_on_while_a_node_prepares(agents: Agents) -> None:
    _train_alone(agents)
    agents.waits("worker-1 prepares", (agents.folder / "preparing").exists)
    agents.reaches("worker-0", agents.step("worker-0", world=1) + 10, world=1)
    assert agents.log("worker-0").count("world of") == 1, "nobody may have left the world yet"
    (agents.folder / "go").touch()
    for name in ("worker-0", "worker-1"):
        agents.reaches(name, 4, world=2)
    assert "prepared in" in agents.log("worker-1")
    assert not agents.redone("worker-0"), "all was saved: no step is done twice"


def test_a_notice_ends_the_preparation(agents: Agents) -> None:
    _train_alone(agents)
    agents.waits("worker-1 prepares", (agents.folder / "preparing").exists)
    agents.processes["worker-1"].send_signal(signal.SIGTERM)
    code, record = agents.ends("worker-1")
    assert (code, record.cause) == (ExitCode.PREEMPTED, Cause.PREEMPTED), agents.log("worker-1")
    assert record.message == "told to leave before its ranks ran"
    agents.reaches("worker-0", agents.step("worker-0", world=1) + 5, world=1)
    assert agents.log("worker-0").count("world of") == 1, "a node that never joined disturbs nobody"
    agents.processes["worker-0"].send_signal(signal.SIGTERM)
    agents.ends("worker-0")
    agents.nothing_outlives()


@pytest.mark.parametrize(
    ("preparation", "limits", "said"),
    [
        ("raise SystemExit('no such file')", {}, "ended with 1: the ranks try again"),
        (_WAITS, {"load": 2}, "made no progress for 2 s: the ranks prepare"),
    ],
)
def test_a_preparation_that_fails_leaves_it_to_the_ranks(
    agents: Agents, preparation: str, limits: dict[str, float], said: str
) -> None:
    agents.limits = json.dumps(limits)
    _train_alone(agents, preparation)
    for name in ("worker-0", "worker-1"):
        agents.reaches(name, 4, world=2)
    assert said in agents.log("worker-1"), f"expected {said!r} in:\n{agents.log('worker-1')}"


def test_a_program_that_is_not_there_is_told(agents: Agents) -> None:
    agents.host_store()
    agents.start("worker-0", "1:2", "loop.py", "400")
    agents.reaches("worker-0", 3, world=1)
    agents.preparation = ["/no/such/program"]
    agents.start("worker-1", "1:2", "loop.py", "400")
    agents.reaches("worker-1", 4, world=2)
    assert "`/no/such/program` ended with 1" in agents.log("worker-1")
