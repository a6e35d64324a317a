"""TorchX's commands against the cluster: scenario 18. And `aurl logs`, when the pods are gone too."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from torchx.runner import get_runner

from tests.e2e.cluster.job import TRAINER, Job
from tests.e2e.cluster.kube import get, run, wait_for

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


def torchx(*argv: str) -> str:
    return run(str(BIN / "torchx"), *argv)


def test_a_training_job_by_torchx(job: Job) -> None:
    job.spec = {"suspend": True}
    job.apply()  # for its secret
    cfg = f"namespace={job.namespace},image={TRAINER},secret=s3,pods=All"
    # As one types it: the handle is the last line.
    out = torchx(
        *("run", "-s", "aurl", "-cfg", cfg, "aurl.train", "--config", "quick_test", "--name", "mozart"),
        *("-j", "1:2x1", "--checkpoint", f"s3://aurl/{job.namespace}/mozart", "--steps", "60"),
        *("--every", "20"),
    )
    handle = next(line for line in out.splitlines() if line.startswith("aurl://"))
    mozart = Job(job.namespace, "mozart")
    wait_for("it runs", lambda: "RUNNING" in torchx("status", handle), 120, 2)
    assert f"{job.namespace}:mozart" in torchx("list", "-s", "aurl")
    assert "trainer" in torchx("describe", handle)
    with get_runner() as runner:
        wait_for("it has said something", lambda: list(runner.log_lines(handle, "trainer", 0)), 120, 2)
        later = datetime.now(UTC) + timedelta(hours=1)
        late = list(runner.log_lines(handle, "trainer", 0, since=later))
        assert mozart.running(), "expected its pods to be there still: nobody else keeps when a line was said"
        assert not late, f"expected nothing so late, found {late[:5]}"
        lines = list(runner.log_lines(handle, "trainer", 0, should_tail=True))
        assert any("world of" in line for line in lines), f"expected the agent's words, found {lines[:5]}"
    mozart.wait_phase("Succeeded", 240)
    wait_for("its pods are gone", lambda: not mozart.pods(), 60)
    kept = run(str(BIN / "aurl"), "logs", "mozart", "-n", job.namespace)
    assert "step 20/60" in kept, f"expected the log from beside the checkpoints, found {kept[:500]}"


def test_a_script_by_dist_ddp(job: Job) -> None:
    cfg = f"namespace={job.namespace},pods=All"
    script = ("-m", "timeit", "--image", TRAINER, "--", "-n", "1", "-r", "1", "print('heard')")
    out = torchx("run", "-s", "aurl", "-cfg", cfg, "dist.ddp", "-j", "2x1", *script)
    handle = next(line for line in out.splitlines() if line.startswith("aurl://"))
    wait_for("it has succeeded", lambda: "SUCCEEDED" in torchx("status", handle), 180, 2)


def test_a_running_app_is_cancelled(job: Job) -> None:
    cfg = f"namespace={job.namespace}"
    script = ("-m", "timeit", "--image", TRAINER, "--", "-n", "1", "-r", "1", "import time; time.sleep(600)")
    out = torchx("run", "-s", "aurl", "-cfg", cfg, "dist.ddp", "-j", "1x1", *script)
    handle = next(line for line in out.splitlines() if line.startswith("aurl://"))
    wait_for("it runs", lambda: "RUNNING" in torchx("status", handle), 120, 2)
    torchx("cancel", handle)
    wait_for("it is gone", lambda: not get("-n", job.namespace, "atj")["items"], 60)
