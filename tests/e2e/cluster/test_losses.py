"""A job of two nodes loses something, and goes on by itself: scenarios 1 to 9."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from kubernetes import client

from aurl_trainer.monitor.records import read_records
from aurl_trainer.store.format.names import is_void
from tests.e2e.cluster.job import Job, figure, slowed
from tests.e2e.cluster.kube import evict, faults, kubectl, wait_for
from tests.e2e.cluster.story import Steps, nothing_remains, the_same_training, told_among, told_once
from tests.integration.apiserver.client import api_client

MIDDLE = 60


def test_an_undisturbed_job_succeeds_and_leaves_nothing(job: Job, undisturbed: Steps, tmp_path: Path) -> None:
    job.apply()
    status = job.wait_phase("Succeeded", 420)
    assert not status.get("incidents")
    the_same_training(job, undisturbed, tmp_path)
    nothing_remains(job)


def ended_as_if_undisturbed(job: Job, undisturbed: Steps, folder: Path, *causes: str) -> dict[str, object]:
    status = job.wait_phase("Succeeded", 420)
    first = told_once(job, status, *causes)
    the_same_training(job, undisturbed, folder)
    nothing_remains(job)
    return first


def test_a_pod_is_deleted(job: Job, undisturbed: Steps, tmp_path: Path) -> None:
    job.apply()
    job.wait_durable(MIDDLE)
    pod = job.running()[-1]["metadata"]["name"]
    kubectl("-n", job.namespace, "delete", "pod", pod, "--wait=false")
    incident = ended_as_if_undisturbed(job, undisturbed, tmp_path, "deleted")
    figure("pod deleted to next step", seconds=float(str(incident["recoverySeconds"])))


@pytest.mark.slow
def test_a_pod_is_evicted(job: Job, undisturbed: Steps, tmp_path: Path) -> None:
    job.apply()
    job.wait_durable(MIDDLE)
    pod = job.running()[-1]["metadata"]["name"]
    evict(job.namespace, pod)
    ended_as_if_undisturbed(job, undisturbed, tmp_path, "preempted")


@pytest.mark.slow
def test_a_machine_is_drained(job: Job, undisturbed: Steps, tmp_path: Path) -> None:
    job.apply()
    job.wait_durable(MIDDLE)
    try:
        kubectl(
            "drain", "node-2", "--force", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s"
        )
        status = job.wait_phase("Succeeded", 420)
        # Store and node may both have been there: one incident each at most, and never a crash.
        told_among(job, status, "preempted", "store-lost", most=2)
        the_same_training(job, undisturbed, tmp_path, silent=1)  # where the store was drained, too
        nothing_remains(job)
    finally:
        kubectl("uncordon", "node-2")


@pytest.mark.parametrize("store", ["node-1", pytest.param("node-2", marks=pytest.mark.slow)])
def test_a_machine_loses_its_power(job: Job, undisturbed: Steps, tmp_path: Path, store: str) -> None:
    """Once it holds a node only, once the rendezvous store, too."""
    apply_with_store_on(job, store)
    job.wait_durable(MIDDLE)
    job.on("node-2")
    cause = "node-lost" if job.running("store")[0]["spec"]["nodeName"] == "node-1" else "store-lost"
    lost = time.time()
    faults("node", "kill", "node-2")
    try:
        wait_for("whole again, or already done by the rest", lambda: _whole(job) or _done(job), 240)
        status = job.wait_phase("Succeeded", 420)
        told_once(job, status, cause)
        the_same_training(job, undisturbed, tmp_path, silent=1)
        others = trained_on(tmp_path, lost)
        assert others is not None, "expected a world of those that are left"
        figure(f"power lost to the others training on ({cause})", seconds=others)
        if (whole := trained_on(tmp_path, lost, nodes=2)) is not None:
            figure(f"power lost to whole again ({cause})", seconds=whole)
    finally:
        faults("node", "start", "node-2")
        wait_for("node-2 is ready", lambda: "True" in kubectl("get", "node", "node-2", "-o", READY), 120)
    # Only a machine that is back can say that its pods have ended.
    nothing_remains(job)


def trained_on(folder: Path, lost: float, nodes: int = 1) -> float | None:
    """Seconds from a loss to the first step of the next world that has as many nodes, by their records: a
    status is older. None: the job was done before."""
    found = list(read_records(folder / "records", ("audit", "start")))
    worlds = {r["generation"]: r["world"] for r in found if r["kind"] == "start"}
    steps = [(r["generation"], float(r["at"])) for r in found if r["kind"] == "audit"]
    before = max(generation for generation, at in steps if at < lost)
    later = [at for generation, at in steps if generation > before and worlds[generation] >= nodes]
    return min(later) - lost if later else None


def apply_with_store_on(job: Job, machine: str) -> None:
    """Submits the job; its store comes to that machine, its nodes wherever there is room."""
    other = "node-2" if machine == "node-1" else "node-1"
    machines = client.CoreV1Api(api_client())
    machines.patch_node(other, {"spec": {"unschedulable": True}})
    try:
        job.apply()
        # The nodes come when the store is ready, a moment later: a kubectl for each look would be too slow.
        wait_for("the store has a machine", lambda: _placed(machines, job), 60, 0.05)
    finally:
        machines.patch_node(other, {"spec": {"unschedulable": None}})


def _placed(machines: client.CoreV1Api, job: Job) -> bool:
    found = machines.list_namespaced_pod(
        job.namespace, label_selector=f"aurl.dev/job={job.name},aurl.dev/role=store"
    )
    return any(pod.spec.node_name for pod in found.items)


READY = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"


def _whole(job: Job) -> bool:
    running = job.running()
    return len(running) == 2 and all(pod["spec"].get("nodeName") != "node-2" for pod in running)


def _done(job: Job) -> bool:
    return job.status().get("phase") == "Succeeded"


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "mend"), [("cut", "heal"), ("freeze", "thaw")])
def test_a_machine_comes_back_after_it_was_replaced(
    job: Job, undisturbed: Steps, tmp_path: Path, fault: str, mend: str
) -> None:
    """All is asked while the job still trains: later nobody could tell whether the old node takes part."""
    job.spec = {"training": slowed(64)}
    apply_with_store_on(job, "node-1")
    wait_for("a checkpoint", lambda: job.saved() >= MIDDLE, 240)
    gone = job.on("node-2")["metadata"]["uid"]
    older = job.newest_generation()
    faults("node", fault, "node-2")
    try:
        wait_for("replaced", lambda: _whole(job), 180)
        wait_for("two train", lambda: job.newest_generation() > older and job.world() == 2, 120)
        generation, nodes = job.newest_generation(), _uids(job)
        wait_for("a save of theirs", lambda: job.newest().generation == generation, 120)
    finally:
        faults("node", mend, "node-2")
    wait_for("node-2 is ready", lambda: "True" in kubectl("get", "node", "node-2", "-o", READY), 120)
    wait_for("the old node's pod has ended", lambda: gone not in _uids(job), 120)
    saved = job.saved()
    wait_for(f"a checkpoint after step {saved}, when it is back", lambda: job.saved() > saved, 120)
    assert _uids(job) == nodes, "expected those that train to be left alone by the node that is back"
    assert job.newest_generation() == generation > older, "expected the node that is back to form no world"
    _nothing_void(job)
    status = job.wait_phase("Succeeded", 420)
    told_once(job, status, "node-lost")
    _nothing_void(job)
    the_same_training(job, undisturbed, tmp_path, silent=1)
    nothing_remains(job)


def _uids(job: Job) -> set[str]:
    return {pod["metadata"]["uid"] for pod in job.running()}


def _nothing_void(job: Job) -> None:
    """No world has committed beyond what the one after it went on from."""
    store = job.store()
    void = [str(name) for name in store.committed() if is_void(name, store.fences())]
    assert not void, f"expected no checkpoint of a node that was replaced, found {void}"


@pytest.mark.slow
def test_the_store_is_deleted(job: Job, undisturbed: Steps, tmp_path: Path) -> None:
    job.apply()
    job.wait_durable(MIDDLE)
    pod = job.running("store")[0]["metadata"]["name"]
    kubectl("-n", job.namespace, "delete", "pod", pod, "--wait=false")
    status = job.wait_phase("Succeeded", 420)
    told_among(job, status, "deleted", "store-lost")
    the_same_training(job, undisturbed, tmp_path, silent=1)
    nothing_remains(job)


@pytest.mark.slow
def test_the_pod_of_rank_0_is_deleted(job: Job, undisturbed: Steps, tmp_path: Path) -> None:
    job.apply()
    job.wait_durable(MIDDLE)
    kubectl("-n", job.namespace, "delete", "pod", job.first_rank(), "--wait=false")
    ended_as_if_undisturbed(job, undisturbed, tmp_path, "deleted")
