"""The health and metrics ports of a real operator's parts."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from aurl_operator import service
from aurl_operator.backends.kubernetes.runtime import Runtime
from aurl_operator.settings import Settings
from tests.addresses import NEEDS_IPV6
from tests.unit.operator.kubernetes.small_server import SmallServer


def _free_port() -> int:
    with socket.create_server(("0.0.0.0", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("[::1]", marks=NEEDS_IPV6)])
def test_health_and_metrics_are_told_on_addresses_of_both_kinds(host: str) -> None:
    async def story() -> None:
        settings = Settings(namespaces=("music",), health_port=_free_port(), metrics_port=_free_port())
        async with SmallServer().client() as api, aiohttp.ClientSession() as session:
            servers = await service.servers(settings, Runtime(api, settings))
            try:
                for port, path in ((settings.health_port, "healthz"), (settings.metrics_port, "metrics")):
                    async with session.get(f"http://{host}:{port}/{path}") as response:
                        assert response.status == 200
            finally:
                await servers.cleanup()

    asyncio.run(story())
