"""No process outlives a run, whatever was killed: ranks, and what ranks have started, in whatever session."""

from __future__ import annotations

import psutil
import pytest

from aurl_trainer.contract import ExitCode
from tests.integration.local.conftest import Place, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


def running(place: Place) -> tuple[psutil.Popen, psutil.Process]:
    """A run in its first steps, with a straggler, and its guard."""
    place.write_job(steps=2000, seconds=0.1)
    call = place.start("run", "job.yaml")
    wait_for("a few steps", lambda: place.step() >= 2)
    assert [p for p in place.processes() if p.name() == "sleep"], "the script has left a process of its own"
    return call, guard_of(call.pid)


def guard_of(pid: int) -> psutil.Process:
    (guard,) = [
        p
        for p in psutil.Process(pid).children()
        if "aurl_operator.backends.local.process.guard" in p.cmdline()
    ]
    return guard


def test_the_supervisor_is_killed(place: Place) -> None:
    call, _ = running(place)
    call.kill()
    call.wait()
    place.assert_nothing_left("SIGKILL of aurl run")


def test_an_agent_is_killed(place: Place) -> None:
    call, _ = running(place)
    before = place.processes()
    place.agents()["worker-0"].kill()
    wait_for("all of the killed agent's processes gone", lambda: not any(p.is_running() for p in before), 60)
    wait_for("a replacement", lambda: "worker-0" in place.agents())
    call.kill()
    call.wait()
    place.assert_nothing_left("SIGKILL of aurl run")


def test_the_guard_is_killed_and_comes_back(place: Place) -> None:
    call, guard = running(place)
    guard.kill()
    wait_for(
        "another guard",
        lambda: any(
            p.pid != guard.pid and "aurl_operator.backends.local.process.guard" in p.cmdline()
            for p in psutil.Process(call.pid).children()
        ),
    )
    assert call.poll() is None, "the run goes on"
    call.kill()
    call.wait()
    place.assert_nothing_left("SIGKILL of aurl run")


def test_supervisor_and_guard_are_killed_at_once_and_the_next_run_sweeps(place: Place) -> None:
    call, guard = running(place)
    guard.suspend()
    call.kill()
    guard.kill()
    call.wait()
    stragglers = [p for p in place.processes() if p.name() == "sleep"]
    place.write_job(steps=place.step() + 5, seconds=0.1)
    output = place.aurl("run", "job.yaml", code=ExitCode.REFUSED)
    assert "another config" in output, "another number of steps is another command"
    place.write_job(steps=2000, seconds=0.1)
    again = place.start("run", "job.yaml")
    reached = place.step()
    wait_for("the run goes on", lambda: place.step() > reached + 2)
    assert not [p for p in stragglers if p.is_running()], "leftovers of the killed run are gone"
    again.kill()
    again.wait()
    place.assert_nothing_left("SIGKILL of aurl run")
