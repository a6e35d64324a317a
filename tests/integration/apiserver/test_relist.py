"""An operator whose watches are never connected: all that it knows it has from lists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.listen import relist
from aurl_operator.backends.kubernetes.runtime import Runtime
from aurl_operator.settings import Settings
from tests.integration.apiserver.conftest import kubectl
from tests.integration.apiserver.kubelet import Kubelet
from tests.integration.apiserver.test_operator import eventually, job, whole


def test_a_job_lives_by_lists_alone(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relist, "FIRST_SECONDS", 0.5)
    monkeypatch.setattr(relist, "EVERY_SECONDS", 0.5)
    monkeypatch.setattr(relist, "SETTLE_SECONDS", 0.1)
    calls: list[tuple[str, str]] = []

    async def life() -> None:
        async with await Api.connect(counted=lambda verb, status, what: calls.append((verb, what))) as api:
            runtime = Runtime(api, Settings(namespaces=(namespace,), workers=2))
            await runtime.start()
            with ThreadPoolExecutor(1) as thread, Kubelet(namespace) as kubelet:

                async def seen(what: str, probe: Callable[[], Any]) -> Any:
                    return await asyncio.get_running_loop().run_in_executor(thread, eventually, what, probe)

                await asyncio.to_thread(job, namespace)
                nodes = await seen("both nodes run", whole(kubelet, set()))
                kubelet.vanish(nodes[0])
                gone = {nodes[0]["metadata"]["uid"]}
                await seen("the one that vanished is replaced", whole(kubelet, gone, 1))
                calls.clear()
                await asyncio.sleep(3)
                named = {what for verb, what in calls} - {"pods", "aurltrainingjobs"}
                assert not named, f"expected nothing but lists while nothing changes, found {calls}"
                kubectl("-n", namespace, "delete", "atj", "bach", "--wait=false")
                await seen("it is forgotten", lambda: not runtime.cache.entries)
            await runtime.stop()

    asyncio.run(life())
