"""Memory that runs out, crashes that do not end, and preemptions that never count: scenarios 10 and 11."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster.job import Job
from tests.e2e.cluster.kube import evict, get, kubectl, wait_for
from tests.e2e.cluster.story import Steps, nothing_remains, the_same_training, told_once

pytestmark = pytest.mark.slow

HOG = """
import os, pathlib, time
ranks = [p.parent for p in pathlib.Path("/proc").glob("[0-9]*/cmdline")
         if b"aurl_trainer\\0train" in p.read_bytes() and b"agent" not in p.read_bytes()]
for rank in ranks:
    (rank / "oom_score_adj").write_text("1000")
for _ in range(64):
    if not all(rank.exists() for rank in ranks):
        break
    held, told = os.pipe()
    if os.fork() == 0:
        block = b"x" * (128 << 20)
        os.write(told, b"1")
        time.sleep(120)
        os._exit(0)
    os.read(held, 1)
"""
"""Takes memory in small processes until the limit of the container is reached: the kernel picks the rank."""


def plain(script: str, **spec: Any) -> dict[str, Any]:
    """A job that runs a line of Python under the agent, and knows nothing of steps."""
    command = ["-m", "timeit", "-n", "1", "-r", "1", script]
    return {"command": command, "training": None, "nodes": {"min": 1, "max": 1}, **spec}


def test_memory_runs_out_once(job: Job, undisturbed: Steps, tmp_path: Path) -> None:
    job.apply()
    job.wait_durable(60)
    pod = job.running()[-1]["metadata"]["name"]
    kubectl("-n", job.namespace, "exec", pod, "-c", "trainer", "--", "python", "-c", HOG, check=False)
    status = job.wait_phase("Succeeded", 420)
    told_once(job, status, "out-of-memory")
    the_same_training(job, undisturbed, tmp_path, silent=1)
    nothing_remains(job)


def test_a_crash_loop_fails_after_exactly_its_budget(job: Job) -> None:
    backoff = {"initialSeconds": 1, "maxSeconds": 2}
    job.spec = plain("raise ValueError('boom')", recovery={"crashes": {"limit": 2, "backoff": backoff}})
    job.apply()
    status = job.wait_phase("Failed", 180)
    assert status["restarts"] == {"crash": 3}, f"expected two restarts, found {status['restarts']}"
    assert "boom" in kubectl("-n", job.namespace, "describe", "atj", job.name), "expected the traceback"
    nothing_remains(job)


def test_twenty_preemptions_are_no_reason_to_fail(job: Job) -> None:
    at_once = {"preemptions": {"backoff": {"initialSeconds": 1, "maxSeconds": 1}}}
    job.spec = plain("import time; time.sleep(900)", terminationGracePeriodSeconds=2, recovery=at_once)
    job.apply()
    gone: set[str] = set()
    for n in range(1, 21):
        pod = wait_for(
            f"a node runs for the {n}th time",
            lambda: next((p for p in job.running() if p["metadata"]["uid"] not in gone), None),
            90,
        )
        gone.add(pod["metadata"]["uid"])
        evict(job.namespace, pod["metadata"]["name"])
        wait_for("it is booked", lambda n=n: sum(job.status().get("restarts", {}).values()) == n, 60)
    status = job.status()
    assert status["restarts"] == {"preempted": 20}, f"found {status['restarts']}"
    assert status["phase"] not in ("Failed", "Succeeded"), status.get("message")
    kubectl("-n", job.namespace, "delete", "atj", job.name)
    wait_for("nothing is left", lambda: not get("-n", job.namespace, "pods")["items"], 60)


VOLUME = {"name": "data", "persistentVolumeClaim": {"claimName": "nobody-made-it"}}
MOUNTED = {
    "volumes": [{"name": "data", "configMap": {"name": "nobody-made-it"}}],
    "containers": [{"name": "trainer", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"checkpoint": {"secret": "nobody-made-it"}}, "Refused"),
        ({"template": {"spec": {"volumes": [VOLUME]}}}, "Volume"),
        ({"template": {"spec": MOUNTED}}, "Volume"),
    ],
)
def test_what_is_missing_is_named(job: Job, spec: dict[str, Any], reason: str) -> None:
    job.spec = plain("pass", **spec)
    job.apply()

    def waiting() -> dict[str, Any] | None:
        conditions = job.status().get("conditions", [])
        return next((c for c in conditions if c["type"] == "Waiting" and c["reason"] == reason), None)

    found = wait_for(f"the reason {reason}", waiting, 90)
    assert "nobody-made-it" in found["message"], f"expected the name, found {found['message']}"
