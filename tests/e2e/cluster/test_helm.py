"""The chart is installed, tested, upgraded and uninstalled while a job runs: scenario 17."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.cluster.conftest import install
from tests.e2e.cluster.job import Job, nothing_left
from tests.e2e.cluster.kube import get, kubectl, run, wait_for

ENDLESS = 100_000
"""Steps: whatever an upgrade, an uninstallation and an installation take, it trains on meanwhile."""


CRD = "aurltrainingjobs.aurl.dev"
FIELD = "finishTimeoutSeconds"


def _spec(crd: dict[str, Any]) -> dict[str, Any]:
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found: dict[str, Any] = schema["properties"]["spec"]["properties"]
    return found


def _take_a_field_from_the_definition() -> None:
    """As if an older chart had installed it."""
    crd = get("crd", CRD)
    del _spec(crd)[FIELD]
    kubectl("replace", "-f", "-", stdin=json.dumps(crd))


def test_install_upgrade_uninstall_keep_a_running_job(job: Job) -> None:
    run("helm", "test", "aurl", "-n", "aurl-system", "--timeout", "120s")
    job.spec = {"training": {"preset": "quick_test", "overrides": {"engine": {"steps": ENDLESS}}}}
    job.apply()
    job.wait_durable(20)
    before = {pod["metadata"]["uid"] for pod in job.running()}
    _take_a_field_from_the_definition()
    install("--set", "log.level=DEBUG")
    assert FIELD in _spec(get("crd", CRD)), "expected the upgrade to bring the definition's new field"
    job.wait_durable(job.durable() + 20)
    assert {pod["metadata"]["uid"] for pod in job.running()} == before, "expected an upgrade to touch no pod"
    run("helm", "uninstall", "aurl", "-n", "aurl-system", "--wait")
    assert {pod["metadata"]["uid"] for pod in job.running()} == before, "expected pods to outlive the chart"
    assert get("-n", job.namespace, "atj", "bach")["metadata"]["name"] == "bach"
    install()
    # More than one status that the operator before may have left.
    job.wait_durable(job.durable() + 60)
    assert {pod["metadata"]["uid"] for pod in job.running()} == before, "expected the new one to touch no pod"
    status = job.status()
    assert not status.get("incidents"), f"expected no incident, found {status['incidents']}"
    kubectl("-n", "aurl-system", "get", "lease", "aurl-operator")
    kubectl("-n", job.namespace, "delete", "atj", job.name, "--timeout=170s")
    wait_for("nothing is left", lambda: not nothing_left(job), 90)
