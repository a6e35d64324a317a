"""Losses of every kind: who is charged, who goes on, and that nothing outlives them."""

from __future__ import annotations

import json
import signal

import psutil
import pytest

from aurl_trainer.agent.blame import BARRED
from aurl_trainer.agent.quarrel import WORLDS
from aurl_trainer.contract import Cause, ExitCode
from tests.integration.agent.conftest import Agents

pytestmark = pytest.mark.processes

NODES = ["worker-0", "worker-1", "worker-2"]
OTHERS = ["worker-0", "worker-2"]


def finish(agents: Agents, names: list[str]) -> None:
    """The named nodes go on together and end well; nothing is left of any node."""
    for name in names:
        code, record = agents.ends(name)
        assert (code, record.cause) == (ExitCode.OK, Cause.SUCCEEDED), agents.log(name)
    agents.nothing_outlives()


def test_a_rank_crashes(agents: Agents) -> None:
    agents.host_store()
    for name in NODES:
        agents.start(name, "2:3", "loop.py", "40", "--do", "worker-1:5:crash")
    code, record = agents.ends("worker-1")
    assert (code, record.cause) == (ExitCode.CRASH, Cause.CRASH), agents.log("worker-1")
    assert "ZeroDivisionError: asked to crash at step 5" in record.message
    assert record.traceback and "in happen" in record.traceback
    finish(agents, OTHERS)
    assert agents.step("worker-0", world=2) == 39, "the others must have gone on together"


def test_a_rank_of_a_foreign_script_crashes(agents: Agents) -> None:
    agents.host_store()
    for name in NODES:
        agents.start(name, "2:3", "foreign.py", "40", "--do", "worker-1:5:crash")
    code, record = agents.ends("worker-1")
    assert (code, record.cause) == (ExitCode.CRASH, Cause.CRASH), agents.log("worker-1")
    assert "ValueError: a mistake at step 5" in record.message
    assert record.traceback and "foreign.py" in record.traceback
    finish(agents, OTHERS)
    assert agents.step("worker-0", world=2) == 39, "the others must have gone on together"


def test_nodes_that_blame_each_other_for_ever_are_a_crash(agents: Agents) -> None:
    agents.host_store()
    for name in NODES[:2]:
        agents.start(name, "2", "quarrel.py")
    agents.waits("one gives up", lambda: any(agents.processes[n].poll() is not None for n in NODES[:2]))
    name = next(n for n in NODES[:2] if agents.processes[n].poll() is not None)
    code, record = agents.ends(name)
    assert (code, record.cause) == (ExitCode.CRASH, Cause.CRASH), agents.log(name)
    assert f"{WORLDS} worlds of the same nodes" in record.message
    assert agents.log(name).count("world of 2 nodes") == WORLDS


def test_a_final_error_ends_the_run_on_all_nodes(agents: Agents) -> None:
    agents.host_store()
    for name in NODES:
        agents.start(name, "2:3", "loop.py", "1000", "--do", "worker-1:2:final")
    for name in NODES:
        code, record = agents.ends(name)
        assert (code, record.cause) == (ExitCode.FINAL, Cause.FINAL_ERROR), agents.log(name)
        assert "asked for a final error at step 2" in record.message, "all say what it was"
    agents.start("worker-3", "2:3", "loop.py", "1000")
    code, record = agents.ends("worker-3")
    assert (code, record.cause) == (ExitCode.FINAL, Cause.FINAL_ERROR), "nobody can join any more"
    agents.nothing_outlives()


def test_a_rank_is_killed(agents: Agents) -> None:
    agents.host_store()
    for name in NODES:
        agents.start(name, "2:3", "loop.py", "40", "--do", "worker-1:5:kill")
    code, record = agents.ends("worker-1")
    assert (code, record.cause) == (ExitCode.CRASH, Cause.CRASH), agents.log("worker-1")
    assert "SIGKILL" in record.message
    finish(agents, OTHERS)


def test_one_of_two_ranks_of_a_node_crashes(agents: Agents) -> None:
    agents.start("worker-0", "1", "loop.py", "40", "--do", "worker-0:5:crash", procs=2)
    code, record = agents.ends("worker-0")
    assert (code, record.cause) == (ExitCode.CRASH, Cause.CRASH), agents.log("worker-0")
    assert "ZeroDivisionError" in record.message, "the first failing rank counts, not the one it takes along"
    agents.nothing_outlives()


def test_an_agent_is_killed(agents: Agents) -> None:
    agents.host_store()
    for name in NODES:
        agents.start(name, "2:3", "loop.py", "60", "--do", "worker-1:2:child")
    agents.reaches("worker-0", 5, world=3)
    tree = agents.tree("worker-1")
    assert len(tree) >= 3, "the agent, its rank, the rank's child"
    agents.processes["worker-1"].send_signal(signal.SIGKILL)
    agents.waits("all that it had started is gone", lambda: not any(map(alive, tree)))
    finish(agents, OTHERS)
    assert agents.step("worker-0", world=2) == 59


@pytest.mark.parametrize("script", ["loop.py", "foreign.py"])
@pytest.mark.parametrize("whole", [False, True], ids=["agent", "tree"])
def test_a_node_freezes_and_thaws(agents: Agents, script: str, whole: bool) -> None:
    agents.host_store()
    for name in NODES:
        agents.start(name, "2:3", script, "4000")
    agents.reaches("worker-0", 3, world=3)
    agents.reaches("worker-1", 3, world=3)
    frozen = agents.tree("worker-1") if whole else agents.tree("worker-1")[:1]
    for process in frozen:
        process.suspend()
    for name in OTHERS:
        agents.reaches(name, 3, world=2)
    agents.running(*NODES)
    for process in frozen:
        if alive(process):
            process.resume()
    before = agents.step("worker-0", world=3)
    agents.reaches("worker-0", before + 3, world=3)
    agents.reaches("worker-1", before + 3, world=3)
    agents.running(*NODES)


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_the_store_is_lost(agents: Agents, how: signal.Signals) -> None:
    agents.host_store()
    for name in NODES:
        agents.start(name, "3", "loop.py", "1000")
    agents.reaches("worker-0", 2, world=3)
    assert agents.store is not None
    agents.store.send_signal(how)
    for name in NODES:
        code, record = agents.ends(name)
        assert (code, record.cause) == (ExitCode.STORE_LOST, Cause.STORE_LOST), agents.log(name)
    agents.nothing_outlives()


@pytest.mark.parametrize("mishap", ["notice", "kill"])
def test_a_node_that_is_lost_before_it_comes_holds_nobody_up(agents: Agents, mishap: str) -> None:
    agents.limits = json.dumps({"load": 90})
    agents.host_store()
    agents.start("worker-0", "2", "loop.py", "10")
    agents.start("worker-1", "2", "loop.py", "10", mishap=mishap)
    agents.waits("worker-1 is gone", lambda: agents.processes["worker-1"].poll() is not None)
    assert "world of" not in agents.log("worker-1"), "it must not have come into this world"
    if mishap == "notice":
        assert agents.ends("worker-1")[1].cause == Cause.PREEMPTED
    agents.start("worker-2", "2", "loop.py", "10")
    for name in ("worker-0", "worker-2"):
        code, record = agents.ends(name)
        assert (code, record.cause) == (ExitCode.OK, Cause.SUCCEEDED), agents.log(name)
    agents.nothing_outlives()


@pytest.mark.parametrize("patience", [60.0, 5.0], ids=["slow", "lost"])
def test_a_store_that_fails_on_the_way_out_changes_no_verdict(agents: Agents, patience: float) -> None:
    agents.peer_timeout = patience
    agents.host_store()
    agents.start("worker-0", "1:2", "no_memory.py", mishap="slow-store")
    code, record = agents.ends("worker-0")
    log = agents.log("worker-0")
    assert (code, record.cause) == (ExitCode.OUT_OF_MEMORY, Cause.OUT_OF_MEMORY), log
    assert "asked for too much" in record.message
    if patience > 8:
        assert "could not take its name off the rendezvous" in log, "else the store was not slow enough"
    agents.nothing_outlives()


def test_a_rank_hangs_in_c_code_that_holds_the_interpreter(agents: Agents) -> None:
    agents.host_store()
    for name in NODES:
        agents.start(name, "2:3", "loop.py", "40", "--do", "worker-1:5:gil")
    code, record = agents.ends("worker-1")
    assert (code, record.cause) == (ExitCode.HANG, Cause.HANG), agents.log("worker-1")
    assert record.step is not None and record.step <= 5, "the last step that it could report"
    assert record.traceback and "in happen" in record.traceback, "the stack must say where it hangs"
    finish(agents, OTHERS)


def test_a_rank_hangs_in_python(agents: Agents) -> None:
    agents.host_store()
    agents.limits = json.dumps({"step": 6, "sync": 3})
    for name in NODES:
        agents.start(name, "2:3", "loop.py", "40", "--do", "worker-1:5:sleep")
    code, record = agents.ends("worker-1")
    assert (code, record.cause) == (ExitCode.HANG, Cause.HANG), agents.log("worker-1")
    assert "phase step of step 5" in record.message
    assert record.traceback and "in never_returns" in record.traceback
    finish(agents, OTHERS)


def test_a_peer_vanishes_at_the_very_end(agents: Agents) -> None:
    agents.host_store()
    for name in NODES[:2]:
        agents.start(name, "1:2", "foreign.py", "10", "--linger", "worker-1")
    for name in NODES[:2]:
        agents.waits(f"{name} has finished", lambda name=name: "finished" in agents.log(name))
    agents.running(*NODES[:2])
    agents.processes["worker-1"].send_signal(signal.SIGKILL)
    finish(agents, ["worker-0"])


def test_a_node_that_thaws_after_it_was_replaced_cannot_join(agents: Agents) -> None:
    agents.host_store()
    for name in ("worker-0", "worker-1"):
        agents.start(name, "1:2", "loop.py", "400")
    agents.reaches("worker-0", 3, world=2)
    frozen = agents.tree("worker-1")
    for process in frozen:
        process.suspend()
    agents.reaches("worker-0", 5, world=1)
    agents.start("worker-2", "1:2", "loop.py", "400", barred="uid-worker-1")
    agents.reaches("worker-2", 6, world=2)
    for process in frozen:
        process.resume()
    code, record = agents.ends("worker-1")
    assert (code, record.cause) == (ExitCode.PREEMPTED, Cause.PREEMPTED), agents.log("worker-1")
    assert record.message == BARRED, record.message
    agents.running("worker-0", "worker-2")
    after = agents.step("worker-2", world=2)
    agents.reaches("worker-2", after + 3, world=2)
    formed = agents.log("worker-1").count("world of")
    assert formed == 1, f"the replaced node must not join again, but was in {formed} worlds"
