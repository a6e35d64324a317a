"""Worlds that form, grow, shrink and end without anybody's fault."""

from __future__ import annotations

import json
import signal

import pytest

from aurl_trainer.contract import Cause, ExitCode
from tests.addresses import NEEDS_IPV6
from tests.integration.agent.conftest import Agents

pytestmark = pytest.mark.processes

NODES = ["worker-0", "worker-1", "worker-2"]


def test_all_end_well(agents: Agents) -> None:
    agents.host_store()
    for name in NODES:
        agents.start(name, "3", "loop.py", "20", "--do", "worker-1:3:child")
    for name in NODES:
        code, record = agents.ends(name)
        assert (code, record.cause) == (ExitCode.OK, Cause.SUCCEEDED), agents.log(name)
        assert "finished" in agents.log(name), "the ranks' output must reach the agent's"
    agents.nothing_outlives()


@NEEDS_IPV6
def test_a_world_forms_over_ipv6(agents: Agents) -> None:
    agents.host = "::1"
    agents.host_store()
    for name in NODES[:2]:
        agents.start(name, "2", "loop.py", "5")
    for name in NODES[:2]:
        code, record = agents.ends(name)
        assert (code, record.cause) == (ExitCode.OK, Cause.SUCCEEDED), agents.log(name)
    agents.nothing_outlives()


def test_one_node_needs_no_store(agents: Agents) -> None:
    agents.start("worker-0", "1", "loop.py", "15", procs=2)
    code, record = agents.ends("worker-0")
    assert (code, record.cause) == (ExitCode.OK, Cause.SUCCEEDED), agents.log("worker-0")
    assert record.durable_name == f"step-{record.durable_step}", "expected what its rank made durable"
    assert agents.step("worker-0", world=2) == 14, "both ranks are of one world"
    agents.nothing_outlives()


@pytest.mark.parametrize("script", ["loop.py", "foreign.py"])
def test_a_late_node_joins(agents: Agents, script: str) -> None:
    agents.host_store()
    for name in NODES[:2]:
        agents.start(name, "2:3", script, "400")
    agents.reaches("worker-0", 3, world=2)
    agents.start("worker-2", "2:3", script, "400")
    for name in NODES:
        agents.reaches(name, 4, world=3)
    agents.running(*NODES)
    formed = agents.log("worker-0").count("world of")
    assert formed == 2, f"one joining node must make one new world, not {formed - 1}"
    if script == "loop.py":
        assert "leaves:" not in agents.log("worker-0"), "the ranks must leave in agreement"
        redone = agents.redone("worker-0")
        assert not redone, f"all was saved, but steps {redone} were done again"


def test_a_long_evaluation_is_no_hang(agents: Agents) -> None:
    agents.host_store()
    agents.limits = json.dumps({"step": 4, "sync": 4, "evaluate": 100})
    for name in NODES:
        agents.start(name, "3", "loop.py", "10", "--do", "worker-1:3:evaluate")
    for name in NODES:
        code, record = agents.ends(name)
        assert (code, record.cause) == (ExitCode.OK, Cause.SUCCEEDED), agents.log(name)
        assert agents.log(name).count("world of") == 1, "nobody may have left its world"


def test_a_node_under_notice_saves_and_leaves_the_others_go_on(agents: Agents) -> None:
    agents.host_store()
    for name in NODES:
        agents.start(name, "2:3", "loop.py", "80")
    agents.reaches("worker-1", 3, world=3)
    agents.processes["worker-1"].send_signal(signal.SIGTERM)
    code, record = agents.ends("worker-1")
    assert (code, record.cause) == (ExitCode.PREEMPTED, Cause.PREEMPTED), agents.log("worker-1")
    assert record.durable_step is not None and record.durable_step > 3, "expected what its rank had saved"
    for name in ("worker-0", "worker-2"):
        assert agents.ends(name)[0] == ExitCode.OK, agents.log(name)
        assert agents.step(name, world=2) == 79
        assert not agents.redone(name), "the notice left time to save: no step is done twice"
    agents.nothing_outlives()


def test_a_notice_to_all_ends_all(agents: Agents) -> None:
    agents.host_store()
    for name in NODES:
        agents.start(name, "3", "foreign.py", "1000")
    for name in NODES:
        agents.reaches(name, 1, world=3)
    for name in NODES:
        agents.processes[name].send_signal(signal.SIGTERM)
    for name in NODES:
        code, record = agents.ends(name)
        assert (code, record.cause) == (ExitCode.PREEMPTED, Cause.PREEMPTED), agents.log(name)
    agents.nothing_outlives()


def test_a_script_that_ends_well_on_a_notice_has_left_and_not_finished(agents: Agents) -> None:
    agents.host_store()
    for name in NODES[:2]:
        agents.start(name, "1:2", "foreign.py", "60", "--polite")
    agents.reaches("worker-1", 3, world=2)
    agents.processes["worker-1"].send_signal(signal.SIGTERM)
    code, record = agents.ends("worker-1")
    assert (code, record.cause) == (ExitCode.PREEMPTED, Cause.PREEMPTED), agents.log("worker-1")
    assert record.message == "left after a notice", record.message
    code, record = agents.ends("worker-0")
    assert (code, record.cause) == (ExitCode.OK, Cause.SUCCEEDED), agents.log("worker-0")
    assert agents.step("worker-0", world=1) == 59, "the rendezvous stays open: the other goes on to the end"
    agents.nothing_outlives()


def test_the_only_node_of_a_script_that_ends_well_on_a_notice_has_left(agents: Agents) -> None:
    agents.start("worker-0", "1", "foreign.py", "1000", "--polite", procs=2)
    agents.reaches("worker-0", 3, world=2)
    agents.processes["worker-0"].send_signal(signal.SIGTERM)
    code, record = agents.ends("worker-0")
    assert (code, record.cause) == (ExitCode.PREEMPTED, Cause.PREEMPTED), agents.log("worker-0")
    agents.nothing_outlives()


def test_a_notice_before_the_others_have_finished(agents: Agents) -> None:
    agents.host_store()
    for name in NODES[:2]:
        agents.start(name, "2", "foreign.py", "5", "--linger", "worker-1")
    agents.waits("its ranks have finished", lambda: "finished" in agents.log("worker-0"))
    agents.waits("its ranks are gone", lambda: not agents.runs("worker-0", "foreign.py"))
    agents.running("worker-0")
    agents.processes["worker-0"].send_signal(signal.SIGTERM)
    code, record = agents.ends("worker-0")
    assert (code, record.cause) == (ExitCode.PREEMPTED, Cause.PREEMPTED), "nobody knows how the others end"


def test_a_notice_while_waiting_for_others(agents: Agents) -> None:
    agents.host_store()
    agents.start("worker-0", "2", "loop.py", "10")
    agents.waits("the agent listens", lambda: agents.listens_to_sigterm("worker-0"))
    agents.processes["worker-0"].send_signal(signal.SIGTERM)
    code, record = agents.ends("worker-0")
    assert (code, record.cause) == (ExitCode.PREEMPTED, Cause.PREEMPTED), agents.log("worker-0")
    assert record.rank is None


def test_a_second_signal_stops_at_once(agents: Agents) -> None:
    agents.grace = 3600.0
    agents.start("worker-0", "1", "loop.py", "1000", "--do", "worker-0:2:sleep")
    agents.waits("the rank sleeps", lambda: "event worker-0:2:sleep" in agents.log("worker-0"))
    agents.processes["worker-0"].send_signal(signal.SIGTERM)
    agents.waits("the notice is heard", lambda: "notice" in agents.log("worker-0"))
    agents.processes["worker-0"].send_signal(signal.SIGTERM)
    code, record = agents.ends("worker-0")
    assert (code, record.cause) == (ExitCode.PREEMPTED, Cause.PREEMPTED)
    assert "second signal" in record.message
    agents.nothing_outlives()


def test_ranks_that_ignore_a_notice_are_killed_within_the_grace(agents: Agents) -> None:
    agents.grace = 4.0
    agents.start("worker-0", "1", "loop.py", "1000", "--do", "worker-0:2:sleep")
    agents.waits("the rank sleeps", lambda: "event worker-0:2:sleep" in agents.log("worker-0"))
    agents.processes["worker-0"].send_signal(signal.SIGTERM)
    code, record = agents.ends("worker-0")
    assert (code, record.cause) == (ExitCode.PREEMPTED, Cause.PREEMPTED)
    assert "did not" in record.message, record.message
    agents.nothing_outlives()


def test_a_store_that_is_told_to_go_stays_until_its_nodes_have_saved_and_left(agents: Agents) -> None:
    agents.host_store()
    assert agents.store is not None
    for name in NODES[:2]:
        agents.start(name, "2", "loop.py", "1000")
    agents.reaches("worker-0", 3, world=2)
    agents.store.send_signal(signal.SIGTERM)
    agents.waits("it waits", lambda: "waits until" in agents.log("store"))
    agents.reaches("worker-0", agents.step("worker-0", world=2) + 20, world=2)
    for name in NODES[:2]:
        agents.processes[name].send_signal(signal.SIGTERM)
    for name in NODES[:2]:
        code, record = agents.ends(name)
        assert (code, record.cause) == (ExitCode.PREEMPTED, Cause.PREEMPTED), agents.log(name)
    agents.waits("the store ends", lambda: agents.store and agents.store.poll() is not None)
    assert agents.store.returncode == ExitCode.OK, agents.log("store")


@pytest.mark.parametrize("used", [False, True])
def test_a_store_that_nobody_needs_ends_at_once(agents: Agents, used: bool) -> None:
    agents.host_store()
    assert agents.store is not None
    if used:
        agents.start("worker-0", "1:2", "loop.py", "5")
        agents.ends("worker-0")
    agents.store.send_signal(signal.SIGTERM)
    assert agents.store.wait(5.0) == ExitCode.OK, agents.log("store")


def test_a_second_signal_ends_a_store_at_once(agents: Agents) -> None:
    agents.host_store()
    assert agents.store is not None
    agents.start("worker-0", "1:2", "loop.py", "1000")
    agents.reaches("worker-0", 3, world=1)
    agents.store.send_signal(signal.SIGTERM)
    agents.waits("it waits", lambda: "waits until" in agents.log("store"))
    agents.store.send_signal(signal.SIGTERM)
    assert agents.store.wait(5.0) == ExitCode.OK, agents.log("store")
    assert agents.ends("worker-0")[1].cause == Cause.STORE_LOST
