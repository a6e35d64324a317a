"""Runs the parts one after the other and prints each figure beside its aim."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from bench.operator.jobs import AT_ONCE, Pods, bare, remove, submit
from bench.operator.process import Operator

QUIET_SECONDS = 4.0


class Bench:
    """One namespace, one operator, and what was measured."""

    def __init__(self, api: Api, namespace: str, operator: Operator, pods: Pods) -> None:
        self.api, self.namespace, self.operator, self.pods = api, namespace, operator, pods

    async def until(self, what: str, probe: Callable[[], bool], seconds: float = 900) -> None:
        end = time.monotonic() + seconds
        while not probe():
            self.operator.look()
            if time.monotonic() > end:
                raise SystemExit(f"expected within {seconds:.0f} s: {what}")
            await asyncio.sleep(0.1)

    async def jobs(self, prefix: str, count: int, nodes: int, rate: float | None) -> dict[str, float]:
        """Submits jobs and waits until all their nodes run. Returns the figures."""
        writes = self.operator.writes()
        there = await submit(self.api, self.namespace, prefix, count, nodes, rate)

        def made() -> bool:
            return all(len(self.pods.created.get(name, {})) >= nodes for name in there)

        await self.until("all nodes are created", made)
        waits = sorted(sorted(self.pods.created[n].values())[nodes - 1] - at for n, at in there.items())
        last = max(max(self.pods.created[name].values()) for name in there)

        def run() -> bool:
            ours = [p for p in self.pods.running() if p["metadata"]["labels"][names.JOB] in there]
            return len(ours) >= count * nodes

        await self.until("all nodes run", run)
        await quiet(self.operator)
        return {
            "jobs_per_second": count / (last - min(there.values())),
            "p50_seconds": statistics.median(waits),
            "p99_seconds": waits[int(len(waits) * 0.99)],
            "writes_per_job": (self.operator.writes() - writes) / count,
        }

    async def disrupted(self, count: int) -> float:
        """Seconds until `count` disrupted nodes are all replaced."""
        victims = self.pods.running()[:count]
        known = {uid for found in self.pods.created.values() for uid in found}
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(pod: dict[str, Any]) -> None:
            metadata = pod["metadata"]
            path = paths.pod(self.namespace, metadata["name"])
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "EvictionByEvictionAPI",
                "message": "bench",
                "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            async with slots:
                kept = (await self.api.get(path))["status"].get("conditions", [])
                await self.api.merge(f"{path}/status", {"status": {"conditions": [*kept, condition]}})
                await self.api.delete(path, uid=metadata["uid"], grace=0)

        began = time.time()
        await asyncio.gather(*(one(pod) for pod in victims))

        def fresh() -> list[float]:
            return [at for f in self.pods.created.values() for uid, at in f.items() if uid not in known]

        await self.until("all are replaced", lambda: len(fresh()) >= len(victims), 300)
        return sorted(fresh())[len(victims) - 1] - began


async def quiet(operator: Operator) -> float:
    """Waits until the operator makes no calls for a while. Returns when it made the last, monotonic."""
    last, since = operator.calls(), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS or not last:
        await asyncio.sleep(0.25)
        operator.look()
        now = operator.calls()
        if now != last:
            last, since = now, time.monotonic()
    return since


def show(figures: dict[str, Any], name: str, value: float, aim: str) -> None:
    figures[name] = round(value, 3)
    print(f"{name:<44} {value:>9.2f}   aim {aim}", flush=True)


async def main(args: argparse.Namespace) -> None:
    figures: dict[str, Any] = {"jobs": args.jobs, "nodes": args.nodes}
    log = Path(args.log)
    async with await Api.connect() as api:
        plain = f"bench-{uuid.uuid4().hex[:6]}"
        await api.create("/api/v1/namespaces", {"metadata": {"name": plain}})
        client = await bare(api, plain, args.jobs, args.nodes)
        show(figures, "bare client, jobs/s", client, "-")
        await remove(api, plain)
        namespace = f"bench-{uuid.uuid4().hex[:6]}"
        await api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        pods = Pods(api, namespace)
        watch = asyncio.create_task(pods.run())
        try:
            with Operator(namespace, log) as operator:
                bench = Bench(api, namespace, operator, pods)
                await quiet(operator)
                burst = await bench.jobs("burst", args.jobs, args.nodes, None)
                show(figures, "burst, jobs/s", burst["jobs_per_second"], ">= 25 (40 with one node)")
                show(figures, "ratio to the bare client", burst["jobs_per_second"] / client, ">= 0.6")
                show(figures, "writes a job until it runs", burst["writes_per_job"], "<= 14")
                paced = await bench.jobs("paced", args.paced or args.jobs, args.nodes, args.rate)
                show(figures, f"p99 at {args.rate:g}/s, object to all nodes, s", paced["p99_seconds"], "<= 2")
                count = min(args.disrupt, len(pods.running()))
                show(
                    figures, f"{count} pods disrupted, all replaced, s", await bench.disrupted(count), "<= 4"
                )
                await quiet(operator)
                before = sum(operator.calls().values())
                await asyncio.sleep(args.idle)
                calls = (sum(operator.calls().values()) - before) / args.idle
                show(figures, "calls a second when nothing changes", calls, "~ 0")
                show(figures, "peak memory, MiB", operator.peak / 2**20, "<= 256")
            with Operator(namespace, log) as operator:
                began = time.monotonic()
                since = await quiet(operator)
                show(figures, "restarted: quiet after, s", max(0.0, since - began), "<= 15")
                show(figures, "restarted: writes", operator.writes(), "0")
        finally:
            watch.cancel()
            await remove(api, namespace)
    print(json.dumps(figures))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.operator", description=__doc__)
    parser.add_argument("--jobs", type=int, default=300, help="in the burst")
    parser.add_argument("--paced", type=int, help="at the rate, besides; default: as many as in the burst")
    parser.add_argument("--nodes", type=int, default=2, help="nodes of each job")
    parser.add_argument("--rate", type=float, default=15.0, help="jobs a second in the paced part")
    parser.add_argument("--disrupt", type=int, default=100, help="pods disrupted at once")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of doing nothing")
    parser.add_argument("--log", default="/tmp/aurl-bench-operator.log", help="where the operator's log goes")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
