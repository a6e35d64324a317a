"""`aurl run` with real agents: to the end, interrupted and continued, refused, short of capacity."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import yaml

from aurl_operator.backends.local.rundir import read_ledger
from aurl_trainer.contract import ExitCode
from bench.chaos.job import job, write_music
from tests.integration.local.conftest import Place, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


def test_ctrl_c_once_saves_and_the_same_command_goes_on(place: Place) -> None:
    place.write_job(steps=60, seconds=0.2)
    first = place.start("run", "job.yaml")
    wait_for("a few steps", lambda: place.step() >= 3)
    assert "in use by `aurl run`" in place.aurl("run", "job.yaml", code=ExitCode.REFUSED)
    running = place.status()
    assert running["running"] and [p["name"] for p in running["processes"]] == ["worker-0-0"]

    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == ExitCode.NOT_FINISHED, output
    assert "error: saved before its end; go on with: aurl run job.yaml" in output
    assert "Traceback" not in output
    place.assert_nothing_left("an interrupt")
    assert place.status()["status"]["phase"] == "Suspended"
    reached = place.step()
    assert reached < 60

    output = place.aurl("run", "job.yaml", "--set", "terminationGracePeriodSeconds=10", code=ExitCode.OK)
    assert f"step {reached + 1} of 60" in output and f"step {reached - 1} of 60" not in output
    assert "Succeeded: tiny" in output
    place.assert_nothing_left("the end")
    kinds = [(e.kind, e.cause) for e in read_ledger(place.run_dir)]
    assert not [k for k in kinds if k[0] == "incident"], "an interrupt by the user is no incident"

    assert "is finished already" in place.aurl("run", "job.yaml", code=ExitCode.OK)
    job = yaml.safe_load((place.run_dir / "job.yaml").read_text())
    assert job["spec"]["terminationGracePeriodSeconds"] == 10, "the job as it ran, overrides applied"
    refused = place.aurl("run", "job.yaml", "--set", "command.1='61'", code=ExitCode.REFUSED)
    assert "holds a run of another config" in refused
    assert 'error: spec.command.1: "60" there, "61" here' in refused


def test_ctrl_c_twice_stops_at_once(place: Place) -> None:
    place.write_job(steps=1000, seconds=0.1)
    call = place.start("run", "job.yaml", "--quiet")
    wait_for("a few steps", lambda: place.step() >= 3)
    call.send_signal(signal.SIGINT)
    call.send_signal(signal.SIGINT)
    wait_for("the end", lambda: call.poll() is not None or call.send_signal(signal.SIGINT))
    output, _ = call.communicate(timeout=60)
    assert call.returncode == ExitCode.INTERRUPTED, output
    place.assert_nothing_left("two interrupts")


def test_a_script_that_fails_for_good_fails_the_run_with_its_words(place: Place) -> None:
    place.write_job(recovery={"crashes": {"limit": 0}})
    (place.folder / "broken.py").write_text("raise KeyError('no such chord')\n")
    output = place.aurl("run", "job.yaml", "--set", "command=[broken.py]", code=ExitCode.RUN_FAILED)
    assert "no such chord" in output
    (incident,) = [e for e in read_ledger(place.run_dir) if e.kind == "incident"]
    assert incident.cause == "crash" and "KeyError" in (incident.traceback or "")
    logs = (place.run_dir / "logs" / "worker-0-0.log").read_text()
    assert "[worker-0 rank 0]:" in logs and "no such chord" in logs


def test_a_world_that_never_reaches_its_smallest_size_ends(place: Place) -> None:
    place.write_job(nodes={"min": 2, "max": 2}, startTimeoutSeconds=5)
    output = place.aurl("run", "job.yaml", "--capacity", "1", code=ExitCode.NO_CAPACITY)
    last = output.splitlines()[-1]
    assert last.startswith("error: tiny failed: 1 of at least 2 nodes ready after 5 s")
    assert "this machine offers 1 node" in last
    assert place.step() == 0
    place.assert_nothing_left("a start time-out")
    output = place.aurl("run", "job.yaml", code=ExitCode.OK)
    assert "Succeeded: tiny" in output, "with room enough, a run that failed for want of it is tried again"


def test_losses_on_purpose_are_recovered_from_and_priced(place: Place) -> None:
    place.write_job(steps=250, seconds=0.1, nodes={"min": 1, "max": 2})
    output = place.aurl(
        "rehearse", "job.yaml", "--kill", "worker-1@step:5", "--preempt", "worker-0@step:30", "--json", code=0
    )
    rows = json.loads(output[output.index("[\n {") :])
    assert [(r["event"], r["cause"]) for r in rows] == [
        ("--kill worker-1@step:5", "node-lost"),
        ("--preempt worker-0@step:30", "preempted"),
    ]
    for row in rows:
        assert row["recovery_seconds"] > 0, f"{row['event']} has no recovery"
    assert "in a world of 1" in output or "in a world of 2" in output
    assert place.step() == 250
    status = place.status()["status"]
    assert status["restarts"] == {"node-lost": 1, "preempted": 1}, (
        "a preemption is no crash, and no loss counts twice"
    )
    assert place.status()["running"] is False
    assert "node-lost" in place.aurl("status", "runs/tiny", code=0)
    place.assert_nothing_left("a rehearsal")


def test_logs_of_every_process_are_kept(place: Place) -> None:
    place.write_job(steps=3, nodes={"min": 2, "max": 2})
    output = place.aurl("run", "job.yaml", code=0)
    assert {p.name for p in (place.run_dir / "logs").glob("*.log")} == {
        "store-0-0.log",
        "worker-0-0.log",
        "worker-1-0.log",
    }
    for rank in (0, 1):
        assert f"rank {rank}  │ step 3 of 3 in a world of 2" in output
    assert "\x1b" not in output, "no colours in a pipe"


def test_a_missing_script_is_found_before_anything_is_made(place: Place) -> None:
    place.write_job(command=["nowhere.py"])
    output = place.aurl("run", "job.yaml", code=ExitCode.MISSING)
    assert output.startswith("error: spec.command: nowhere.py: no such file in ")
    assert not Path(place.folder / "runs").exists()


def test_a_rank_of_a_training_job_is_found_and_killed(place: Place) -> None:
    """Such a rank is forked, and shows the environment of the process that it was forked from."""
    job(place.folder, write_music(place.folder / "music", 6), nodes=1, steps=40)
    output = place.aurl("rehearse", "job.yaml", "--kill-rank", "worker-0/0@step:5", "--json", code=0)
    (row,) = json.loads(output[output.index("[\n {") :])
    assert row["cause"] == "crash", row
    assert "SIGKILL" in next(e.message for e in read_ledger(place.run_dir) if e.cause == "crash")
    place.assert_nothing_left("a rehearsal")


def test_a_killed_rank_is_a_crash_and_a_frozen_machine_is_lost(place: Place) -> None:
    place.write_job(steps=60, seconds=0.1, recovery={"crashes": {"backoff": {"initialSeconds": 1}}})
    events = ("--kill-rank", "worker-0/0@step:5", "--freeze", "worker-0@step:20")
    output = place.aurl("rehearse", "job.yaml", *events, "--json", code=0)
    rows = json.loads(output[output.index("[\n {") :])
    assert {r["event"]: r["cause"] for r in rows} == {
        "--kill-rank worker-0/0@step:5": "crash",
        "--freeze worker-0@step:20": "node-lost",
    }
    assert "SIGKILL" in next(e.message for e in read_ledger(place.run_dir) if e.cause == "crash")
    assert place.step() == 60
    place.assert_nothing_left("a rehearsal")
