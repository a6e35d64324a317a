"""The cluster under test: images are on its machines, the operator is installed by the chart, S3 answers."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster.job import STEPS, Job
from tests.e2e.cluster.kube import REQUIRED, SCRIPT, kubectl, run
from tests.e2e.cluster.operator_log import OperatorLog
from tests.integration.apiserver.operator import tracebacks

ROOT = Path(__file__).resolve().parents[3]
HOW = "no cluster: set KUBECONFIG (CONTRIBUTING.md says what it must have)"
NEEDED = {
    "AWS_ENDPOINT_URL": "an S3 server with a bucket aurl that pods reach",
    "AWS_ACCESS_KEY_ID": "its key",
}
OPERATOR = os.environ.get("AURL_OPERATOR_IMAGE", "docker.io/local/aurl-operator:dev")
TRAINER = os.environ.get("AURL_TRAINER_IMAGE", "docker.io/local/aurl-trainer:dev")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def cluster() -> None:
    """A cluster that answers, and an object store for its pods."""
    if "KUBECONFIG" not in os.environ:
        if REQUIRED:
            pytest.fail(HOW)
        pytest.skip(HOW)
    needed = {**NEEDED, SCRIPT: "what breaks machines"} if REQUIRED else NEEDED
    missing = [f"{name} ({what})" for name, what in needed.items() if name not in os.environ]
    assert not missing, f"set {', '.join(missing)}: CONTRIBUTING.md says more"
    kubectl("get", "nodes")


def install(*more: str) -> None:
    """Install or upgrade the operator by its chart, and wait until both replicas are ready."""
    repository, _, tag = OPERATOR.rpartition(":")
    values = {
        "image.repository": repository,
        "image.tag": tag,
        "defaultImage": TRAINER,
        "log.format": "text",
    }
    kubectl("create", "namespace", "aurl-system", check=False)
    # So that the API-server tests know that they may uninstall it.
    kubectl("label", "namespace", "aurl-system", "aurl.dev/tests=true", "--overwrite")
    sets = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    chart = str(ROOT / "charts")
    run(
        *("helm", "upgrade", "--install", "aurl", chart, "-n", "aurl-system"),
        *("--take-ownership", "--wait", "--timeout", "180s", *sets, *more),
        seconds=240,
    )


@pytest.fixture(scope="session")
def operator(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The operator, serving the whole cluster."""
    with OperatorLog(tmp_path_factory.mktemp("operator")) as log:
        install()
        yield
    said = list(log.texts())
    assert any("leader" in text for _, text in said), f"expected the operator's log, found {len(said)} files"
    found = "\n".join(f"{name}: {errors}" for name, text in said if (errors := tracebacks(text)))
    assert not found, f"expected no unexpected errors of the operator:\n{found[-6000:]}"


@pytest.fixture
def namespace(cluster: None) -> Iterator[str]:
    name = f"aurl-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    subprocess.run(["kubectl", "delete", "namespace", name, "--wait=false"], check=False, timeout=60)


@pytest.fixture
def job(operator: None, namespace: str) -> Job:
    return Job(namespace)


@pytest.fixture(scope="session")
def undisturbed(
    operator: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, tuple[float, frozenset[int]]]:
    """Loss and sample ids of every step of a run to which nothing happened."""
    name = f"aurl-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    plain = Job(name)
    plain.apply()
    status = plain.wait_phase("Succeeded", 420)
    assert not status.get("incidents"), f"expected no incident, found {status['incidents']}"
    steps = plain.steps(tmp_path_factory.mktemp("undisturbed"))
    assert sorted(steps) == list(range(1, STEPS + 1)), f"expected {STEPS} steps, found {sorted(steps)}"
    subprocess.run(["kubectl", "delete", "namespace", name, "--wait=false"], check=False, timeout=60)
    return steps
