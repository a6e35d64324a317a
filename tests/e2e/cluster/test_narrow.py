"""An image that knows nothing of Aurl, and an operator that may work in one namespace only: 19 and 20."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.cluster.conftest import TRAINER, install
from tests.e2e.cluster.job import Job
from tests.e2e.cluster.kube import faults, kubectl, run, wait_for
from tests.e2e.cluster.story import nothing_remains
from tests.e2e.cluster.test_limits import plain

pytestmark = pytest.mark.slow

FOREIGN = "docker.io/local/foreign:dev"
WITHOUT_AURL = f"""
FROM {TRAINER.removeprefix("docker.io/")}
USER root
RUN pip uninstall --yes aurl
USER 10001
"""

SCRIPT = """
import os, pathlib, time, torch, torch.distributed as dist
try:
    import aurl_trainer
except ImportError:
    pass
else:
    raise SystemExit("this image is not foreign")
dist.init_process_group("gloo")
state = pathlib.Path("/tmp/state.pt")
known = torch.tensor(torch.load(state)["step"] if state.exists() else 0)
dist.all_reduce(known, dist.ReduceOp.MIN)  # each node has a disk of its own
step = int(known)
while step < 60:
    total = torch.ones(1)
    dist.all_reduce(total)
    step += 1
    torch.save({"step": step}, state)
    time.sleep(0.5)
print("done", dist.get_world_size(), flush=True)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def foreign_image(cluster: None) -> str:
    """An image with torch in which Aurl is not installed."""
    if "AURL_FOREIGN_IMAGE" in os.environ:
        return os.environ["AURL_FOREIGN_IMAGE"]
    name = FOREIGN.removeprefix("docker.io/")
    run("docker", "buildx", "build", "--load", "-t", name, "-", stdin=WITHOUT_AURL, seconds=300)
    faults("load", name)
    return FOREIGN


def test_a_script_in_a_foreign_image_survives_the_loss_of_a_node(job: Job, foreign_image: str) -> None:
    body = f"exec({SCRIPT!r})"
    job.spec = plain(body, image=foreign_image) | {"nodes": {"min": 1, "max": 2}}
    job.apply()
    wait_for("two nodes", lambda: (job.status().get("nodes") or {}).get("ready") == 2, 120)
    pod = job.running()[-1]["metadata"]["name"]
    kubectl("-n", job.namespace, "delete", "pod", pod, "--wait=false")
    status = job.wait_phase("Succeeded", 300)
    assert status["restarts"] == {"deleted": 1}, f"found {status['incidents']}"
    nothing_remains(job)


@pytest.fixture
def narrow(operator: None, namespace: str) -> Iterator[str]:
    """A namespace with Pod Security restricted, and an operator with rights there only."""
    label = ("pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted")
    kubectl("label", "namespace", namespace, *label)
    run("helm", "uninstall", "aurl", "-n", "aurl-system", "--wait")
    install("--set", f"namespaces={{{namespace}}}")
    yield namespace
    run("helm", "uninstall", "aurl", "-n", "aurl-system", "--wait")
    install()


def test_one_namespace_under_pod_security_restricted(narrow: str) -> None:
    job = Job(narrow)
    job.apply()
    job.wait_durable(20)
    kubectl("-n", narrow, "delete", "pod", job.running()[-1]["metadata"]["name"], "--wait=false")
    status = job.wait_phase("Succeeded", 420)
    assert status["restarts"] == {"deleted": 1}, f"found {status['incidents']}"
    nothing_remains(job)
    selector = "app.kubernetes.io/name=aurl-operator"
    log = kubectl("-n", "aurl-system", "logs", "-l", selector, "--tail=-1")
    denied = [line for line in log.splitlines() if "forbidden" in line.lower() or "403" in line]
    assert not denied, f"expected nothing to be forbidden, found {denied[:5]}"
