"""What becomes of an operator of which a part fails."""

from __future__ import annotations

import asyncio

import pytest

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.runtime import Runtime
from aurl_operator.settings import Settings
from tests.unit.operator.kubernetes.small_server import SmallServer


def test_work_ends_when_a_part_of_it_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    """A leader with a dead worker would keep its Lease, and its jobs."""

    async def story() -> None:
        server, broken = SmallServer(), asyncio.Event()
        # No real API server takes such a status: neither a look nor what tells of its failure can read it.
        strange = {
            **{"apiVersion": names.API_VERSION, "kind": names.KIND, "spec": {}, "status": ["x"]},
            "metadata": {"name": "bach", "namespace": "music", "generation": 1},
        }
        server.put(paths.job("music", "bach"), strange)
        async with server.client() as api:
            runtime = Runtime(api, Settings(namespaces=("music",), workers=2), broken=broken.set)
            await runtime.start()
            try:
                async with asyncio.timeout(20):
                    await broken.wait()
            finally:
                await runtime.stop()

    asyncio.run(story())
    assert "a part of the operator has failed: work stops" in caplog.text
    assert "Traceback" in caplog.text, "expected the log to say where"


def test_work_that_is_told_to_stop_has_not_failed() -> None:
    async def story() -> None:
        server, broken = SmallServer(), asyncio.Event()
        async with server.client() as api:
            runtime = Runtime(api, Settings(namespaces=("music",), workers=2), broken=broken.set)
            await runtime.start()
            await asyncio.sleep(0)
            await runtime.stop()
            assert not broken.is_set()

    asyncio.run(story())
