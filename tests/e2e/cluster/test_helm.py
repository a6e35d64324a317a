"""The chart is installed, tested, upgraded and uninstalled while a job runs: scenario 17."""

from __future__ import annotations

from tests.e2e.cluster.conftest import install
from tests.e2e.cluster.job import Job
from tests.e2e.cluster.kube import get, kubectl, run

LONG = 900
"""Steps: enough to outlast an upgrade, an uninstallation and an installation."""


def test_install_upgrade_uninstall_keep_a_running_job(job: Job) -> None:
    run("helm", "test", "aurl", "-n", "aurl-system", "--timeout", "120s")
    job.spec = {"training": {"preset": "quick_test", "overrides": {"engine": {"steps": LONG}}}}
    job.apply()
    job.wait_durable(20)
    before = {pod["metadata"]["uid"] for pod in job.running()}
    install("--set", "log.level=DEBUG")
    job.wait_durable(job.durable() + 20)
    assert {pod["metadata"]["uid"] for pod in job.running()} == before, "expected an upgrade to touch no pod"
    run("helm", "uninstall", "aurl", "-n", "aurl-system", "--wait")
    assert {pod["metadata"]["uid"] for pod in job.running()} == before, "expected pods to outlive the chart"
    assert get("-n", job.namespace, "atj", "bach")["metadata"]["name"] == "bach"
    install()
    status = job.wait_phase("Succeeded", 420)
    assert not status.get("incidents"), f"expected no incident, found {status['incidents']}"
    kubectl("-n", "aurl-system", "get", "lease", "aurl-operator")
