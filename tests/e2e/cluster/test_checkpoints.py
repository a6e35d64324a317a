"""What a job on S3 comes to, whatever it lost on the way: the very weights of a calm run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aurl_trainer.contract import NOTICED
from aurl_trainer.monitor.records import read_records
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from tests.e2e.cluster.job import EVERY, OVERRIDES, STEPS, Job
from tests.e2e.cluster.kube import faults, kubectl, wait_for
from tests.e2e.cluster.test_losses import READY, apply_with_store_on

pytestmark = pytest.mark.slow

TWO: dict[str, Any] = {
    "nodes": {"min": 2, "max": 2},
    # One thread a rank, so that a sum has one order on every machine.
    "training": {
        "preset": "quick_test",
        "overrides": {**OVERRIDES, "engine": {"steps": STEPS, "threads": 1}},
    },
}


def test_both_nodes_are_lost_one_after_the_other_and_the_weights_are_the_same(
    operator: None, namespace: str, tmp_path: Path
) -> None:
    """The first with its machine, without a word; then the one that had stayed."""
    calm, hard = Job(namespace, "calm", TWO), Job(namespace, "hard", TWO)
    calm.apply()
    assert not calm.wait_phase("Succeeded", 420).get("incidents")

    apply_with_store_on(hard, "node-1")  # a node does not outlive its store
    hard.wait_durable(2 * EVERY)
    first = {pod["metadata"]["name"] for pod in hard.running()}
    gone = hard.on("node-2")["metadata"]["name"]
    (stayed,) = first - {gone}
    faults("node", "kill", "node-2")
    try:
        going_on(hard)
    finally:
        faults("node", "start", "node-2")
        wait_for("node-2 is ready", lambda: "True" in kubectl("get", "node", "node-2", "-o", READY), 120)
    assert stayed in {pod["metadata"]["name"] for pod in hard.running()}, f"{stayed} should have stayed"
    kubectl("-n", namespace, "delete", "pod", stayed, "--force", "--grace-period=0")
    going_on(hard)
    status = hard.wait_phase("Succeeded", 420)

    assert sum(status["restarts"].values()) == 2, f"expected two losses, found {status['incidents']}"
    assert not NOTICED & set(status["restarts"]), f"damage or a difference: {status['incidents']}"
    expected, found = weights(calm), weights(hard)
    assert sorted(found) == sorted(expected), "the same tensors"
    different = [name for name in expected if found[name] != expected[name]]
    assert not different, f"expected the weights of the calm run to the last bit, these differ: {different}"
    verdicts = [c["verdict"] for c in certificates(hard, tmp_path)]
    assert verdicts, "expected a certificate after each resume"
    assert set(verdicts) <= {"equal", "nothing to compare"}, f"found {verdicts}"


def going_on(job: Job) -> None:
    """Whole again, and further than before: a new checkpoint."""
    before = job.durable()
    wait_for(f"a checkpoint after step {before}", lambda: job.durable() > before, 300)
    wait_for("two nodes run", lambda: len(job.running()) == 2, 60)


def weights(job: Job) -> dict[str, list[str]]:
    """Hashes of the weights in the last checkpoint, by name, as the manifest has them."""
    store = RunStore(Location(job.uri))
    manifest = store.manifest(store.valid()[-1])
    assert manifest.step == STEPS, f"expected the checkpoint of step {STEPS}, found {manifest.step}"
    return {
        name: [chunk.hash for chunk in tensor.chunks]
        for name, tensor in manifest.tensors.items()
        if name.startswith("model.")
    }


def certificates(job: Job, folder: Path) -> list[dict[str, Any]]:
    """Those that the ranks kept beside the checkpoints."""
    place = Location(job.uri)
    for name in place.names("records"):
        (folder / name).write_bytes(place.get(f"records/{name}"))
    return read_records(folder, {"certificate"})
