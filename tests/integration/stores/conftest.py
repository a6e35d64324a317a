"""A place on each kind of store, and a proxy before it that fails on demand."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.stores.proxy import Proxy, proxied
from tests.integration.stores.servers import KINDS, Server, serving


@pytest.fixture(scope="session", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(request.param) as server:
        yield server


@pytest.fixture(scope="session", params=["file", *KINDS])
def any_server(request: pytest.FixtureRequest) -> Iterator[Server | None]:
    """None: local disks."""
    if request.param == "file":
        yield None
        return
    with serving(request.param) as server:
        yield server


@pytest.fixture
def uri(any_server: Server | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own for each test, on each kind of store."""
    if any_server is None:
        return f"file://{tmp_path}/run"
    for name, value in any_server.environment.items():
        monkeypatch.setenv(name, value)
    return any_server.uri(f"test-{uuid.uuid4().hex}")


@dataclass(frozen=True)
class Faulty:
    """A place on a remote store, reached through a proxy."""

    kind: str
    uri: str
    proxy: Proxy


@pytest.fixture
def faulty(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    with proxied(server.url) as proxy:
        for name, value in server.behind(proxy.url).items():
            monkeypatch.setenv(name, value)
        yield Faulty(server.kind, server.uri(f"test-{uuid.uuid4().hex}"), proxy)
