"""Ranks are forked from a process that has imported everything; without it they start as any other."""

from __future__ import annotations

import os
import signal
import sys

import psutil
import pytest

from tests.integration.agent.conftest import Agents

pytestmark = pytest.mark.processes


def _below(agents: Agents, name: str, module: str) -> list[psutil.Process]:
    """Children of a node's agent that run `module`, by what their command line says."""
    agent = psutil.Process(agents.processes[name].pid)
    return [p for p in agent.children() if p.cmdline()[1:4] == ["-u", "-m", module]]


def _server(agents: Agents, name: str) -> psutil.Process:
    (server,) = _below(agents, name, "aurl_trainer.agent.forkserver")
    return server


def _world(agents: Agents, *, of: int, step: int) -> None:
    for name in list(agents.processes):
        if agents.processes[name].poll() is None:
            agents.reaches(name, step, world=of)


def _two_train(agents: Agents, steps: str) -> None:
    """Two nodes at work, of which one may go."""
    agents.host_store()
    for name in ("worker-0", "worker-1"):
        agents.start(name, "1:2", "loop.py", steps)
    _world(agents, of=2, step=3)


def test_a_rank_is_forked_and_looks_like_one_that_was_started(agents: Agents) -> None:
    agents.start("worker-0", "1", "loop.py", "10000", procs=2)
    agents.reaches("worker-0", 3, world=2)
    server, ranks = _server(agents, "worker-0"), _below(agents, "worker-0", "loop")
    assert len(ranks) == 2, "both are children of the agent, under the names that they would have"
    for rank in ranks:
        shown = [part for part in rank.cmdline() if part]
        started = [sys.executable, "-u", "-m", "loop", str(agents.folder), "10000"]
        assert shown[:4] == started[:4] and " ".join(started).startswith(" ".join(shown))
        # The kernel shows what a process was started with: that of the server, so nobody started it alone.
        assert rank.environ() == server.environ()
        assert os.getpgid(rank.pid) == os.getsid(rank.pid) == rank.pid
    assert {rank.name() for rank in ranks} == {"rank-0", "rank-1"}
    assert "[rank 1]" in agents.log("worker-0"), "what a rank prints has its own prefix"
    agents.processes["worker-0"].send_signal(signal.SIGKILL)
    agents.waits("server and ranks die with the agent", lambda: not any(map(_alive, [server, *ranks])))
    agents.nothing_outlives()


def test_those_that_are_left_get_new_ranks_of_the_same_server(agents: Agents) -> None:
    _two_train(agents, "10000")
    server, (before,) = _server(agents, "worker-0"), _below(agents, "worker-0", "loop")
    agents.processes["worker-1"].send_signal(signal.SIGKILL)
    _world(agents, of=1, step=3)
    (after,) = _below(agents, "worker-0", "loop")
    assert after.pid != before.pid
    assert _server(agents, "worker-0").pid == server.pid, "the server outlives the worlds"


def test_a_server_that_was_killed_costs_time_only(agents: Agents) -> None:
    _two_train(agents, "60")
    server = _server(agents, "worker-0")
    server.kill()
    agents.processes["worker-1"].send_signal(signal.SIGKILL)
    _world(agents, of=1, step=3)
    (rank,) = _below(agents, "worker-0", "loop")
    assert "AURL_ROUND" in rank.environ(), "started as any other process, with an environment of its own"
    assert "the fork server has ended with -9" in agents.log("worker-0")
    assert _server(agents, "worker-0").pid != server.pid, "the next world has another one"
    code, record = agents.ends("worker-0")
    assert code == 0, record
    agents.nothing_outlives()


def test_a_server_that_hangs_costs_time_only(agents: Agents) -> None:
    _two_train(agents, "10000")
    server = _server(agents, "worker-0")
    server.suspend()
    agents.processes["worker-1"].send_signal(signal.SIGKILL)
    _world(agents, of=1, step=3)
    assert not _alive(server), "it must not make a rank later that nobody waits for"
    assert len(_below(agents, "worker-0", "loop")) == 1


WRONG = {
    "import not_there\n": "No module named 'not_there'",
    "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n": (
        "imports have left 1 threads running"
    ),
    "import torch\ntorch.cuda._is_in_bad_fork = lambda: True\n": "an import has initialised CUDA",
}


@pytest.mark.parametrize("module", WRONG, ids=["missing", "thread", "CUDA"])
def test_imports_after_which_nothing_may_be_forked(agents: Agents, module: str) -> None:
    (agents.folder / "wrong_import.py").write_text(module)
    agents.preload, agents.extra_path = "torch,wrong_import", agents.folder
    agents.start("worker-0", "1", "loop.py", "20")
    code, record = agents.ends("worker-0")
    assert code == 0, record
    assert WRONG[module] in agents.log("worker-0")
    assert "the fork server has ended with 1: each rank imports for itself" in agents.log("worker-0")


def test_a_notice_is_heard_while_imports_go_on(agents: Agents) -> None:
    slow = agents.folder / "slow_import.py"
    slow.write_text("import pathlib, time\n"
                    f"pathlib.Path({str(agents.folder / 'importing')!r}).touch()\n"
                    "time.sleep(600)\n")  # fmt: skip
    agents.preload = "slow_import"
    agents.extra_path = agents.folder
    agents.start("worker-0", "1", "loop.py", "20")
    agents.waits("the server imports", (agents.folder / "importing").exists)
    agents.processes["worker-0"].send_signal(signal.SIGTERM)
    _, record = agents.ends("worker-0")
    assert record.message == "told to leave before its ranks ran"
    agents.nothing_outlives()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
