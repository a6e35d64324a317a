"""What a job costs the API server, and what other people's pods cost the operator."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from tests.integration.apiserver.conftest import kubectl
from tests.integration.apiserver.kubelet import Kubelet
from tests.integration.apiserver.operator import OperatorProcess, free_port
from tests.integration.apiserver.test_operator import eventually, job, status, whole

WRITES = 7
"""Of a job of two nodes and a store, from its creation until it runs. Change it only knowingly."""

FOREIGN_EVENTS = 10_000
ROOM = 16 * 2**20
"""Bytes that memory may vary by for reasons of its own."""


def test_writes_from_creation_to_running(namespace: str, tmp_path: Path) -> None:
    port = free_port()
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log", metrics_port=port):
        job(namespace)
        eventually("both nodes run", whole(kubelet, set()))
        time.sleep(3)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    calls = re.findall(
        r'aurl_api_calls_total\{code="\d+",resource="([^"]+)",verb="([A-Z]+)"\} ([0-9.]+)', text
    )
    writes = {
        f"{verb} {what}": int(float(n)) for what, verb, n in calls if verb != "GET" and what != "leases"
    }
    print(f"writes of one job: {sum(writes.values())}: {writes}")
    assert sum(writes.values()) <= WRITES, f"expected at most {WRITES} writes, found {writes}"


def test_a_deleted_job_that_somebody_holds_costs_nothing(namespace: str, tmp_path: Path) -> None:
    with OperatorProcess(namespace, tmp_path / "log", metrics_port=free_port()) as operator:
        job(namespace, cleanup={"checkpoints": "Delete"}, checkpoint={"uri": "s3://b/x"})
        eventually("it is taken on", lambda: status(namespace).get("phase"))
        hold = '{"metadata": {"finalizers": ["aurl.dev/checkpoints", "example.org/held"]}}'
        kubectl("-n", namespace, "patch", "atj", "bach", "--type=merge", "-p", hold)
        kubectl("-n", namespace, "delete", "atj", "bach", "--wait=false")
        finalizers = "jsonpath={.metadata.finalizers}"
        eventually(
            "ours lets go",
            lambda: (
                kubectl("-n", namespace, "get", "atj", "bach", "-o", finalizers).stdout
                == '["example.org/held"]'
            ),
        )
        time.sleep(3)
        before = operator.looks()
        time.sleep(5)
        looks = operator.looks() - before
        kubectl(
            "-n", namespace, "patch", "atj", "bach", "--type=merge", "-p", '{"metadata": {"finalizers": []}}'
        )
    assert before, "expected the operator to count its looks"
    assert looks < 5, f"expected hardly a look in five seconds, found {looks}"


def test_events_of_foreign_pods_leave_the_memory_as_it_is(namespace: str, tmp_path: Path) -> None:
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log") as operator:
        job(namespace)
        eventually("both nodes run", whole(kubelet, set()))
        asyncio.run(_noise(namespace, 1_000))
        before = psutil.Process(operator.pid).memory_info().rss
        asyncio.run(_noise(namespace, FOREIGN_EVENTS))
        after = psutil.Process(operator.pid).memory_info().rss
        assert status(namespace)["phase"] == "Running"
    print(f"memory before {before / 2**20:.1f} MiB, after {after / 2**20:.1f} MiB")
    assert after - before < ROOM, f"expected less than {ROOM} bytes more, found {after - before}"


async def _noise(namespace: str, events: int, pods: int = 20) -> None:
    """Changes pods that carry our label and are nobody's, so often."""
    async with await Api.connect() as api:
        slots = asyncio.Semaphore(16)

        def body(n: int) -> dict[str, Any]:
            labels = {"app.kubernetes.io/managed-by": "aurl", "aurl.dev/job": f"foreign-{n}"}
            spec = {"schedulerName": "nobody", "containers": [{"name": "x", "image": "x"}]}
            return {"metadata": {"name": f"foreign-{n}", "labels": labels}, "spec": spec}

        for n in range(pods):
            await api.create(paths.pods(namespace), body(n))

        async def change(n: int) -> None:
            async with slots:
                path = paths.pod(namespace, f"foreign-{n % pods}")
                await api.merge(path, {"metadata": {"annotations": {"n": str(n)}}})

        await asyncio.gather(*(change(n) for n in range(events)))
        for pod in await api.list(paths.pods(namespace)):
            if pod["metadata"]["name"].startswith("foreign-"):
                path = paths.pod(namespace, pod["metadata"]["name"])
                await api.delete(path, uid=pod["metadata"]["uid"], grace=0)
