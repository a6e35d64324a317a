"""The operator and the API server go while jobs lose nodes: scenarios 12 and 13."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.cluster.job import Job
from tests.e2e.cluster.kube import evict, faults, get, kubectl, run, wait_for
from tests.e2e.cluster.story import Steps, nothing_remains, the_same_training

pytestmark = pytest.mark.slow

KILLS = 10
APART = 12.0
"""Seconds between losses that are not one incident."""


def leader() -> str:
    """The replica that holds the Lease."""
    lease = get("-n", "aurl-system", "lease", "aurl-operator")
    return str(lease["spec"].get("holderIdentity") or "")


def kill_leader() -> None:
    """As by SIGKILL: no time to hand anything over."""
    kubectl(
        *("-n", "aurl-system", "delete", "pod", leader(), "--grace-period=0", "--force", "--wait=false"),
        check=False,
    )


def test_the_operator_is_killed_ten_times_while_the_job_loses_pods(
    job: Job, undisturbed: Steps, tmp_path: Path
) -> None:
    job.apply()
    job.wait_durable(40)
    over = threading.Event()

    def killing() -> None:
        chance = random.Random(12)
        for _ in range(KILLS):
            kill_leader()
            if over.wait(chance.uniform(3.0, 12.0)):
                return

    killer = threading.Thread(target=killing)
    killer.start()
    try:
        losses = ("delete", "evict", "store")
        for n, loss in enumerate(losses, 1):
            role = "store" if loss == "store" else "node"
            pod = wait_for(f"a {role} runs", lambda role=role: (job.running(role) or [None])[-1], 120)
            name = pod["metadata"]["name"]
            if loss == "evict":
                evict(job.namespace, name)
            else:
                kubectl("-n", job.namespace, "delete", "pod", name, "--wait=false")
            wait_for(f"loss {n} is booked", lambda n=n: _booked(job) >= n, 120)
            time.sleep(APART)
    finally:
        killer.join(180)
        over.set()
    status = job.wait_phase("Succeeded", 600)
    assert _booked(job) == len(losses), f"expected each loss once, found {status['incidents']}"
    warnings = get("-n", job.namespace, "events", "--field-selector", "type=Warning")["items"]
    told = [e["message"] for e in warnings if e["involvedObject"]["name"] == job.name]
    assert len(told) == len(losses), f"expected an event for each loss, found {told}"
    the_same_training(job, undisturbed, tmp_path)
    nothing_remains(job)


def test_the_leader_hands_over_under_load(job: Job, undisturbed: Steps, tmp_path: Path) -> None:
    job.apply()
    job.wait_durable(40)
    before = leader()
    kubectl("-n", "aurl-system", "delete", "pod", before, "--wait=false")
    kubectl("-n", job.namespace, "delete", "pod", job.running()[-1]["metadata"]["name"], "--wait=false")
    wait_for("another replica leads", lambda: leader() not in ("", before), 30)
    status = job.wait_phase("Succeeded", 420)
    assert status["restarts"] == {"deleted": 1}, f"found {status['incidents']}"
    the_same_training(job, undisturbed, tmp_path)


def test_the_api_server_is_away_for_a_minute(job: Job, undisturbed: Steps, tmp_path: Path) -> None:
    job.apply()
    job.wait_durable(40)
    faults("apiserver", "kill")
    try:
        time.sleep(60)
    finally:
        faults("apiserver", "start")
    wait_for("the API server answers", lambda: run("kubectl", "get", "nodes", check=False), 120)
    status = job.wait_phase("Succeeded", 420)
    assert not status.get("incidents"), f"expected no incident, found {status['incidents']}"
    the_same_training(job, undisturbed, tmp_path)
    nothing_remains(job)


def _booked(job: Job) -> int:
    return sum((job.status().get("restarts") or {}).values())
