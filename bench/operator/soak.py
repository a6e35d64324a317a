"""Jobs come, lose nodes and are deleted at random: nothing may leak.

    python -m bench.operator.soak --minutes 20

Prints memory, pods, jobs and the queue every half minute, and at the end what is left when all jobs are gone.
Needs what `bench.operator` needs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
import uuid
from pathlib import Path

import psutil

from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ConflictError, NotFoundError
from bench.operator.jobs import Pods, manifest, remove
from bench.operator.process import Operator

MOST = 200
"""Jobs at once."""


async def churn(api: Api, namespace: str, pods: Pods, seconds: float, seed: int) -> int:
    """One thing after the other until the time is over. Returns how many jobs there were."""
    chance = random.Random(seed)
    living: dict[str, str] = {}
    made = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        what = chance.choices(("create", "lose", "delete"), (4, 5, 3))[0]
        try:
            if what == "create" and len(living) < MOST:
                name = f"job-{made}"
                made += 1
                done = await api.create(paths.jobs(namespace), manifest(name, chance.choice((1, 2, 3))))
                living[name] = done["metadata"]["uid"]
            elif what == "lose" and (running := pods.running(chance.choice(("node", "node", "store")))):
                metadata = chance.choice(running)["metadata"]
                path = paths.pod(namespace, metadata["name"])
                await api.delete(path, uid=metadata["uid"], grace=chance.choice((0, 1)))
            elif what == "delete" and living:
                name = chance.choice(list(living))
                await api.delete(paths.job(namespace, name), uid=living.pop(name))
        except (NotFoundError, ConflictError):
            continue
        await asyncio.sleep(chance.uniform(0.0, 0.2))
    for name, uid in living.items():
        await api.delete(paths.job(namespace, name), uid=uid)
    return made


async def main(args: argparse.Namespace) -> None:
    async with await Api.connect() as api:
        namespace = f"soak-{uuid.uuid4().hex[:6]}"
        await api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        pods = Pods(api, namespace)
        watch = asyncio.create_task(pods.run())
        try:
            with Operator(namespace, Path(args.log)) as operator:
                await asyncio.sleep(5)
                work = asyncio.create_task(churn(api, namespace, pods, args.minutes * 60, args.seed))
                memory: list[float] = []
                while not work.done():
                    await asyncio.wait([work], timeout=30)
                    operator.look()
                    memory.append(psutil.Process(operator.pid).memory_info().rss / 2**20)
                    jobs = len(await api.list(paths.jobs(namespace)))
                    print(
                        f"memory {memory[-1]:6.1f} MiB  jobs {jobs:4}  pods {len(pods.alive):4}  "
                        f"queue {operator.gauge('aurl_queue_depth'):.0f}, "
                        f"{operator.gauge('aurl_queue_age_seconds'):.2f} s",
                        flush=True,
                    )
                await asyncio.sleep(45)
                left = len(await api.list(paths.pods(namespace)))
                looks = operator.gauge("aurl_reconcile_seconds_count")
                await asyncio.sleep(10)
                looks = operator.gauge("aurl_reconcile_seconds_count") - looks
                half = len(memory) // 2
                figures = {
                    "jobs": await work,
                    "minutes": args.minutes,
                    "memory_mid_mib": round(max(memory[: half + 1]), 1),
                    "memory_end_mib": round(max(memory[half:]), 1),
                    "pods_left": left,
                    "looks_left": looks,
                    "queue_left": operator.gauge("aurl_queue_depth"),
                    "tracebacks": Path(args.log).read_text().count("Traceback"),
                }
                print(json.dumps(figures))
        finally:
            watch.cancel()
            await remove(api, namespace)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.operator.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", default="/tmp/aurl-soak-operator.log", help="where the operator's log goes")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
