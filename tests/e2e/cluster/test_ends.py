"""What is left of jobs, and two that want the same machines: scenarios 15 and 16."""

from __future__ import annotations

from typing import Any

import fsspec
import pytest

from tests.e2e.cluster.job import Job, nothing_left
from tests.e2e.cluster.kube import get, kubectl, wait_for
from tests.e2e.cluster.test_limits import plain

pytestmark = pytest.mark.slow

SHORT = {"preset": "quick_test", "overrides": {"engine": {"steps": 20}, "samples": {"count": 0}}}
ALMOST_A_MACHINE = "1100m"
"""CPUs: two of these do not fit on a machine of two."""


def test_two_jobs_that_fit_only_one_at_a_time(operator: None, namespace: str) -> None:
    resources = {"requests": {"cpu": ALMOST_A_MACHINE, "memory": "512Mi"}}
    jobs = [Job(namespace, name) for name in ("first", "second")]
    for job in jobs:
        job.spec = {
            "nodes": {"min": 2, "max": 2},
            "resources": resources,
            "startTimeoutSeconds": 30,
            "training": SHORT,
        }
        job.apply()
    for job in jobs:
        job.wait_phase("Succeeded", 600)
        assert not job.status().get("incidents"), f"expected no incident of {job.name}"


@pytest.mark.parametrize(("policy", "left"), [("None", 1), ("Running", 1), ("All", 0)])
def test_pods_that_are_left(job: Job, policy: str, left: int) -> None:
    job.spec = plain("pass", cleanup={"pods": policy})
    job.apply()
    job.wait_phase("Succeeded", 120)
    wait_for(f"{left} pods are left", lambda: len(job.pods()) == left, 30)
    if policy == "All":
        wait_for("nothing but the job is left", lambda: not nothing_left(job), 30)
    kubectl("-n", job.namespace, "delete", "atj", job.name)
    wait_for("nothing is left", lambda: not nothing_left(job), 60)


def test_a_job_goes_when_its_time_is_over(job: Job) -> None:
    job.spec = plain("pass", cleanup={"pods": "All", "ttlSecondsAfterFinished": 5})
    job.apply()
    wait_for("the job is gone", lambda: not get("-n", job.namespace, "atj")["items"], 120)
    wait_for("nothing is left", lambda: not nothing_left(job), 30)


@pytest.mark.parametrize("policy", ["Keep", "KeepBest", "Delete"])
def test_checkpoints_of_a_job_that_is_deleted(job: Job, policy: str) -> None:
    job.spec = {"cleanup": {"pods": "All", "checkpoints": policy}, "training": SHORT}
    job.spec["checkpoint"] = {"uri": job.uri, "every": 5, "secret": "s3", "keep": {"latest": 3, "best": 1}}
    job.apply()
    job.wait_phase("Succeeded", 180)
    before = _objects(job)
    assert before, "expected checkpoints"
    kubectl("-n", job.namespace, "delete", "atj", job.name, "--timeout=120s")
    wait_for("nothing is left", lambda: not nothing_left(job), 60)
    after = _objects(job)
    if policy == "Keep":
        assert after == before
    elif policy == "Delete":
        assert not after, f"expected no object, found {sorted(after)[:5]}"
    else:
        assert after, "expected the best checkpoint to stay"
        assert len(after) < len(before), f"expected fewer than {len(before)} objects"


def training(**overrides: Any) -> dict[str, Any]:
    return {"training": {"preset": "quick_test", "overrides": {"samples": {"count": 0}, **overrides}}}


LONG = training(engine={"steps": 100_000})
PHASES: dict[str, dict[str, Any]] = {
    "Starting": {**LONG, "template": {"spec": {"nodeSelector": {"no": "such-machine"}}}},
    "Suspended": {**LONG, "suspend": True},
    "Running": LONG,
    "Recovering": LONG,
    "Failed": training(data={"source": {"midi": "/nowhere"}}),
    "Succeeded": training(engine={"steps": 10}),
}


@pytest.mark.parametrize("phase", list(PHASES))
def test_deleted_in_every_phase(job: Job, phase: str) -> None:
    job.spec = {**PHASES[phase], "nodes": {"min": 1, "max": 1}, "terminationGracePeriodSeconds": 2}
    job.spec["cleanup"] = {"pods": "None", "checkpoints": "Delete"}
    job.apply()
    if phase == "Recovering":
        wait_for("it runs", lambda: job.running(), 60)
        kubectl("-n", job.namespace, "delete", "pod", job.running()[0]["metadata"]["name"], "--now")
        wait_for("its loss is booked", lambda: job.status().get("incidents"), 60, 0.1)
    else:
        wait_for(f"it is {phase}", lambda: job.status().get("phase") == phase, 120)
    kubectl("-n", job.namespace, "delete", "atj", job.name, "--timeout=170s")
    wait_for("nothing is left", lambda: not nothing_left(job), 90)
    assert phase == "Starting" or not _objects(job), "expected no checkpoints"


def _objects(job: Job) -> set[str]:
    """What of the run's checkpoints is on the object store."""
    fs, path = fsspec.core.url_to_fs(job.uri, use_listings_cache=False, skip_instance_cache=True)
    return {str(p) for p in fs.find(path)} if fs.exists(path) else set()
