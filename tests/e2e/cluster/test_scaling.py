"""A job is suspended, resumed, and scaled while it runs: scenario 14."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.cluster.job import STEPS, Job, slowed
from tests.e2e.cluster.kube import kubectl, wait_for
from tests.e2e.cluster.story import Steps, the_same_training


def _ready(job: Job) -> int | None:
    """Nodes that run, as the status tells."""
    return (job.status().get("nodes") or {}).get("ready")


def test_suspend_resume_and_scale(job: Job, undisturbed: Steps, tmp_path: Path) -> None:
    job.spec = {"nodes": {"min": 1, "max": 1}, "training": slowed(32)}
    job.apply()
    wait_for("a checkpoint", lambda: job.saved(), 240)
    job.patch({"suspend": True})
    job.wait_phase("Suspended", 120)
    wait_for("no pods of a suspended job", lambda: not job.pods(), 30)
    saved = job.saved()
    job.patch({"suspend": False})
    wait_for(f"a checkpoint after step {saved}", lambda: job.saved() > saved, 240)
    kubectl("-n", job.namespace, "scale", "atj/bach", "--replicas=2")
    wait_for("two nodes", lambda: _ready(job) == 2 == len(job.running()), 120)
    two = job.saved()
    wait_for(f"a checkpoint after step {two} by two nodes", lambda: job.saved() > two, 240)
    kubectl("-n", job.namespace, "scale", "atj/bach", "--replicas=1")
    wait_for("one node", lambda: _ready(job) == 1 == len(job.running()), 120)
    wait_for("no store", lambda: not job.running("store"), 60)
    one = job.saved()
    assert one < STEPS, "expected the job to be scaled down before its end"
    wait_for(f"a checkpoint after step {one} by one node", lambda: job.saved() > one, 240)
    assert len(job.running()) <= 1, f"expected one node, found {len(job.running())}"
    status = job.wait_phase("Succeeded", 420)
    assert not status.get("incidents"), f"expected no incident, found {status['incidents']}"
    the_same_training(job, undisturbed, tmp_path)
