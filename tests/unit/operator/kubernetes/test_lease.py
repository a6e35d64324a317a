"""How long a replica works that cannot renew its Lease, in virtual time; damaged Leases and tokens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from kubernetes.client import Configuration

from aurl_operator.backends.kubernetes.client import api as client
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import UnavailableError
from aurl_operator.backends.kubernetes.lease import DEADLINE, DURATION, MARGIN, Lease
from tests.unit.operator.kubernetes.small_server import SmallServer


class Loop(asyncio.SelectorEventLoop):
    """Nothing is waited for: when all sleep, the clock moves on to whoever wakes first."""

    _ready: Any
    _scheduled: Any
    _now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        waking = [handle._when for handle in self._scheduled if not handle._cancelled]
        if not self._ready and waking:
            self._now = max(self._now, min(waking))
        super()._run_once()  # type: ignore[misc]


class Server:
    """Takes a number of writes, each answered late, and has no answer or no connection from then on."""

    def __init__(self, writes: int, late: float, *, hangs: bool) -> None:
        self.lease: dict[str, Any] = {"metadata": {"resourceVersion": "0"}, "spec": {}}
        self.written_at = 0.0
        self._writes, self._late, self._hangs = writes, late, hangs

    async def get(self, path: str) -> dict[str, Any]:
        if not self._writes:
            await asyncio.sleep(1000.0 if self._hangs else 3.0)
            raise UnavailableError(0, "", "away")
        return self.lease

    async def replace(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._writes -= 1
        self.written_at = asyncio.get_running_loop().time()
        version = str(int(self.lease["metadata"]["resourceVersion"]) + 1)
        self.lease = {**body, "metadata": {"resourceVersion": version}}
        await asyncio.sleep(self._late)
        return self.lease


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("late", [0.0, 7.0])
def test_work_ends_before_another_may_begin(late: float, hangs: bool) -> None:
    async def life() -> tuple[float, float]:
        server = Server(3, late, hangs=hangs)
        lease = Lease(cast(Api, server), "aurl-system", "aurl-operator", "me")
        await lease.acquire()
        await lease.hold()
        return server.written_at, asyncio.get_running_loop().time()

    loop = Loop()
    try:
        written, ended = loop.run_until_complete(life())
    finally:
        loop.close()
    most = DURATION - MARGIN if late else DEADLINE
    assert ended - written <= most, f"worked on for {ended - written} s after its last write"


def test_a_lease_that_says_nothing_is_nobodys() -> None:
    async def life() -> dict[str, Any]:
        server = SmallServer()
        path = f"{paths.leases('aurl-system')}/aurl-operator"
        server.put(path, {"metadata": {"name": "aurl-operator", "namespace": "aurl-system"}})
        async with server.client() as api:
            lease = Lease(api, "aurl-system", "aurl-operator", "me")
            await lease.acquire()
            taken: dict[str, Any] = server.objects[path]["spec"]
            await lease.release()
        return taken

    assert asyncio.run(life())["holderIdentity"] == "me"


@pytest.mark.parametrize(("holder", "then"), [("me", ""), ("another", "another")])
def test_a_lease_that_has_changed_unheard_is_handed_over_if_it_is_still_ours(holder: str, then: str) -> None:
    """Ours: a renewal that was given up while it was under way."""

    async def life() -> str:
        server = SmallServer()
        async with server.client() as api:
            lease = Lease(api, "aurl-system", "aurl-operator", "me")
            await lease.acquire()
            path = f"{paths.leases('aurl-system')}/aurl-operator"
            known = server.objects[path]
            server.put(path, {**known, "spec": {**known["spec"], "holderIdentity": holder}})
            await lease.release()
            return str(server.objects[path]["spec"]["holderIdentity"])

    assert asyncio.run(life()) == then


def test_a_token_that_cannot_be_read_is_as_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TRIES", 1)

    async def ask() -> None:
        async with SmallServer().client() as api:

            def read(configuration: Configuration) -> None:
                (tmp_path / "token").read_text()

            api.connection.configuration.refresh_api_key_hook = read
            await api.get("/anything")

    with pytest.raises(UnavailableError, match="no token: "):
        asyncio.run(ask())
