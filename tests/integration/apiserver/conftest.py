"""A real API server: the definition installed, a namespace of one's own, and nobody else at work on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.apiserver.control_plane import control_plane

ROOT = Path(__file__).resolve().parents[3]
HOW = "no cluster: set KUBECONFIG (CONTRIBUTING.md says what it must have), or KUBEBUILDER_ASSETS"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


def kubectl(*argv: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["kubectl", *argv], input=stdin, text=True, capture_output=True, timeout=120, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"kubectl {' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """KUBECONFIG names the cluster under test, or an API server of our own from KUBEBUILDER_ASSETS."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if "KUBECONFIG" in os.environ:
        yield
    elif assets is not None:
        with (
            control_plane(Path(assets), tmp_path_factory.mktemp("control-plane")) as config,
            pytest.MonkeyPatch.context() as environment,
        ):
            environment.setenv("KUBECONFIG", str(config))
            environment.setenv("PATH", assets, prepend=os.pathsep)
            yield
    else:
        if os.environ.get("AURL_CLUSTER_REQUIRED") == "1":
            pytest.fail(HOW)
        pytest.skip(HOW)


@pytest.fixture(scope="session")
def apiserver(kubeconfig: None) -> None:
    """An API server with the definition of jobs, and no other operator that serves the whole cluster."""
    _alone()
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "charts/files/crd.yaml"))
    kubectl("wait", "--for=condition=Established", "crd/aurltrainingjobs.aurl.dev", "--timeout=30s")


def _alone() -> None:
    """No other operator is at work: one that the scenarios installed goes, anybody else's is left alone."""
    selector = ("-l", "app.kubernetes.io/name=aurl-operator", "-o", "jsonpath={.items[*].metadata.namespace}")
    where = set(kubectl("get", "deployments", "-A", *selector).stdout.split())
    label = ("-l", f"{OURS}=true", "-o", "jsonpath={.items[*].metadata.name}")
    ours = set(kubectl("get", "namespaces", *label).stdout.split())
    if where - ours:
        pytest.fail(
            f"an operator is at work in {', '.join(where - ours)}: use a cluster without one, or uninstall it"
        )
    if where and shutil.which("helm"):
        subprocess.run(
            ["helm", "uninstall", "aurl", "-n", "aurl-system", "--ignore-not-found", "--wait"],
            check=True,
            timeout=120,
            capture_output=True,
        )


OURS = "aurl.dev/tests"
"""Label of a namespace whose operator belongs to the tests."""


Namespaces = Callable[[], str]


@pytest.fixture
def namespaces(apiserver: None) -> Iterator[Namespaces]:
    """Makes namespaces of the test's own; may be called by several threads."""
    made: list[str] = []

    def one() -> str:
        name = f"aurl-{uuid.uuid4().hex[:8]}"
        made.append(name)
        kubectl("create", "namespace", name)
        return name

    yield one
    for name in made:
        kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture
def namespace(namespaces: Namespaces) -> str:
    return namespaces()
