"""The operator and the API server go while jobs lose nodes: scenarios 12 and 13."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster.job import Job, slowed
from tests.e2e.cluster.kube import evict, faults, get, kubectl, run, wait_for
from tests.e2e.cluster.leaders import killable, leader, leaders_are_killed
from tests.e2e.cluster.story import Steps, nothing_remains, the_same_training, told_among

pytestmark = pytest.mark.slow

KILLS = 10
SOME = 3
"""Leaders that die while a machine is lost: a dead one's Lease runs out only after 15 s."""

APART = 12.0
"""Seconds between losses that are not one incident."""


@pytest.fixture(scope="module", autouse=True)
def replicas(operator: None) -> Iterator[None]:
    with killable():
        yield


def test_the_operator_is_killed_ten_times_while_the_job_loses_pods(
    job: Job, undisturbed: Steps, tmp_path: Path
) -> None:
    job.spec = {"training": slowed(64)}
    job.apply()
    wait_for("a checkpoint", lambda: job.saved() >= 40, 240)
    with leaders_are_killed(KILLS, seed=12):
        losses = ("rank 0", "delete", "evict", "store")
        for n, loss in enumerate(losses, 1):
            role = "store" if loss == "store" else "node"
            pod = wait_for(f"a {role} runs", lambda role=role: (job.running(role) or [None])[-1], 120)
            name = job.first_rank() if loss == "rank 0" else pod["metadata"]["name"]
            if loss == "evict":
                evict(job.namespace, name)
            else:
                kubectl("-n", job.namespace, "delete", "pod", name, "--wait=false")
            wait_for(f"loss {n} is booked", lambda n=n: _booked(job) >= n, 120)
            time.sleep(APART)
    status = job.wait_phase("Succeeded", 600)
    assert _booked(job) == len(losses), f"expected each loss once, found {status['incidents']}"
    warnings = get("-n", job.namespace, "events", "--field-selector", "type=Warning")["items"]
    told = [e["message"] for e in warnings if e["involvedObject"]["name"] == job.name]
    assert len(told) == len(losses), f"expected an event for each loss, found {told}"
    the_same_training(job, undisturbed, tmp_path, silent=1)  # the store
    nothing_remains(job)


@pytest.mark.parametrize(
    ("fault", "mend"), [("drain", ""), ("kill", "start"), ("cut", "heal"), ("freeze", "thaw")]
)
def test_the_operator_is_killed_while_a_machine_is_lost(
    job: Job, undisturbed: Steps, tmp_path: Path, fault: str, mend: str
) -> None:
    """Often the machine takes a replica of the operator along, or cuts off the one that leads."""
    job.apply()
    job.wait_durable(40)
    job.on("node-2")
    try:
        with leaders_are_killed(SOME, seed=4):
            if fault == "drain":
                kubectl("drain", "node-2", *DRAIN)
            else:
                faults("node", fault, "node-2")
            wait_for("whole again on the rest, or done", lambda: _whole_elsewhere(job) or _done(job), 300)
    finally:
        if fault == "drain":
            kubectl("uncordon", "node-2")
        else:
            faults("node", mend, "node-2")
        wait_for("node-2 is ready", lambda: "True" in kubectl("get", "node", "node-2", "-o", READY), 120)
    status = job.wait_phase("Succeeded", 600)
    told_among(job, status, "preempted" if fault == "drain" else "node-lost", "store-lost", most=2)
    the_same_training(job, undisturbed, tmp_path, silent=1)
    nothing_remains(job)


DRAIN = ("--force", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s")
READY = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"


def _whole_elsewhere(job: Job) -> bool:
    machines = [pod["spec"].get("nodeName") for pod in job.running()]
    return len(machines) == 2 and "node-2" not in machines


def _done(job: Job) -> bool:
    return job.status().get("phase") == "Succeeded"


def test_the_leader_hands_over_during_a_loss(job: Job, undisturbed: Steps, tmp_path: Path) -> None:
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
