"""A job is suspended, resumed, and scaled while it runs: scenario 14."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.cluster.job import Job
from tests.e2e.cluster.kube import kubectl, wait_for
from tests.e2e.cluster.story import Steps, the_same_training


def test_suspend_resume_and_scale(job: Job, undisturbed: Steps, tmp_path: Path) -> None:
    job.spec = {"nodes": {"min": 1, "max": 1}}
    job.apply()
    job.wait_durable(20)
    job.patch({"suspend": True})
    job.wait_phase("Suspended", 120)
    saved = job.durable()
    wait_for("no pods of a suspended job", lambda: not job.pods(), 30)
    job.patch({"suspend": False})
    job.wait_durable(saved + 20)
    kubectl("-n", job.namespace, "scale", "atj/bach", "--replicas=2")
    wait_for("two nodes", lambda: (job.status().get("nodes") or {}).get("ready") == 2, 120)
    saved = job.durable()
    job.wait_durable(saved + 20)
    kubectl("-n", job.namespace, "scale", "atj/bach", "--replicas=1")
    status = job.wait_phase("Succeeded", 420)
    assert not status.get("incidents"), f"expected no incident, found {status['incidents']}"
    the_same_training(job, undisturbed, tmp_path)
