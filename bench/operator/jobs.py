"""The jobs of the benchmark, and what happens to their pods, seen by one watch.

Not here: what is measured (__main__.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

from aurl_operator.api import names
from aurl_operator.api.load import parse_object
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ApiError
from aurl_operator.core.observed import Role
from aurl_operator.core.plan import Start
from aurl_operator.launch.pod.manifest import PodDefaults, pod

AT_ONCE = 32
"""Calls under way at once, of the harness and of the bare client."""


def manifest(name: str, nodes: int, *, runnable: bool = True) -> dict[str, Any]:
    """A job of `nodes` nodes that fake nodes run; one that is not `runnable` is scheduled nowhere."""
    where: dict[str, Any] = {
        "nodeSelector": {"type": "kwok"},
        "tolerations": [{"operator": "Exists"}],
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {
            "image": "fake",
            "nodes": {"min": nodes, "max": nodes},
            "training": {"preset": "quick_test"},
            "checkpoint": {"uri": f"s3://bench/{name}"},
            "cleanup": {"pods": "All"},
            "terminationGracePeriodSeconds": 1,
            "template": {"spec": where if runnable else {"schedulerName": "nobody"}},
        },
    }


def bodies(name: str, uid: str, namespace: str, nodes: int) -> list[dict[str, Any]]:
    """The pods that the operator makes of this job."""
    raw = manifest(name, nodes)
    raw["metadata"] |= {"uid": uid, "namespace": namespace}
    job = parse_object(raw)
    common: dict[str, Any] = {
        "attempt": 0,
        "round": 1,
        "rdzv_id": f"{uid}-1",
        "nodes_min": nodes,
        "nodes_max": nodes,
    }
    starts = [
        Start(role=Role.NODE, index=n, name=f"worker-{n}-0", store="10.0.0.1:29400", **common)
        for n in range(nodes)
    ]
    if nodes > 1:
        starts.insert(0, Start(role=Role.STORE, index=0, name="store-0-0", **common))
    return [pod(job, start, PodDefaults()) for start in starts]


class Pods:
    """When each job's nodes were created, by a watch on their pods."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self.created: dict[str, dict[str, float]] = {}
        """By job, by UID of a node's pod: when its creation was heard of."""
        self.alive: dict[str, dict[str, Any]] = {}
        """Pods that are there, by UID."""

    async def run(self) -> None:
        """Until cancelled."""
        version = ""
        while True:
            query = {"watch": "true", "labelSelector": names.SELECTOR, "timeoutSeconds": "3600"}
            if version:
                query["resourceVersion"] = version
            response = await self._api.lines(paths.pods(self._namespace), **query)
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                async for line in response.content:
                    event = json.loads(line)
                    item = event["object"]
                    if event["type"] == "ERROR":
                        version = ""
                        break
                    version = item["metadata"]["resourceVersion"]
                    self._take(event["type"], item)
            response.close()

    def _take(self, kind: str, item: dict[str, Any]) -> None:
        labels, uid = item["metadata"]["labels"], item["metadata"]["uid"]
        if kind == "DELETED":
            self.alive.pop(uid, None)
            return
        self.alive[uid] = {"metadata": item["metadata"], "phase": item["status"].get("phase")}
        if labels.get(names.ROLE) == "node":
            self.created.setdefault(labels[names.JOB], {}).setdefault(uid, time.time())

    def running(self, role: str = "node") -> list[dict[str, Any]]:
        """Pods of a role that run and are to stay."""
        return [
            item
            for item in self.alive.values()
            if item["metadata"]["labels"].get(names.ROLE) == role
            and item["phase"] == "Running"
            and not item["metadata"].get("deletionTimestamp")
        ]


async def bare(api: Api, namespace: str, jobs: int, nodes: int) -> float:
    """Jobs a second of a client that creates the same objects and nothing else."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(n: int) -> None:
        name = f"bare-{n}"
        async with slots:
            made = await api.create(paths.jobs(namespace), manifest(name, nodes, runnable=False))
            for body in bodies(name, made["metadata"]["uid"], namespace, nodes):
                await api.create(paths.pods(namespace), body)

    began = time.monotonic()
    await asyncio.gather(*(one(n) for n in range(jobs)))
    return jobs / (time.monotonic() - began)


async def submit(
    api: Api, namespace: str, prefix: str, jobs: int, nodes: int, rate: float | None
) -> dict[str, float]:
    """Creates jobs, all at once or `rate` a second. Returns when each was there, by name."""
    slots = asyncio.Semaphore(AT_ONCE)
    there: dict[str, float] = {}
    began = time.monotonic()

    async def one(n: int) -> None:
        if rate is not None:
            await asyncio.sleep(max(0.0, began + n / rate - time.monotonic()))
        async with slots:
            name = f"{prefix}-{n}"
            at = time.time()
            await api.create(paths.jobs(namespace), manifest(name, nodes))
            there[name] = at

    await asyncio.gather(*(one(n) for n in range(jobs)))
    return there


async def remove(api: Api, namespace: str) -> None:
    """Deletes the namespace, and waits until it is gone."""
    path = f"/api/v1/namespaces/{namespace}"
    try:
        found = await api.get(path)
        await api.delete(path, uid=found["metadata"]["uid"])
        while True:
            await api.get(path)
            await asyncio.sleep(1)
    except ApiError:
        return
