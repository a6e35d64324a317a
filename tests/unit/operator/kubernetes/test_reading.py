"""What pods print, read while they print it, from an API server that streams."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from aurl_operator.api import names
from aurl_operator.backends.kubernetes import reading
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.reading import Line, Wanted, lines
from tests.unit.operator.kubernetes.small_server import SmallServer

KEY = ("music", "bach")


class Printing(SmallServer):
    """The first node prints without a pause for as long as the second has not been read."""

    def __init__(self, text: bytes = b"") -> None:
        super().__init__()
        self.text = text
        """What the first prints in place of that."""
        self.read_second = asyncio.Event()
        self.put(paths.job(*KEY), {"metadata": {"name": "bach", "namespace": "music"}})
        self.node(0)

    def node(self, index: int) -> None:
        """It runs from now on."""
        labels = {
            names.JOB: "bach",
            names.ROLE: "node",
            names.INDEX: str(index),
            names.ATTEMPT: "0",
            names.ROUND: "1",
        }
        name = f"bach-worker-{index}-0"
        metadata = {
            "name": name,
            "namespace": "music",
            "labels": labels,
            "creationTimestamp": f"2026-0{index + 1}",
        }
        spec = {"containers": [{"name": names.TRAINER_CONTAINER}]}
        body: dict[str, Any] = {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}}
        self.put(paths.pod("music", name), body)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/log"):
            return await super()._answer(request)
        response = web.StreamResponse()
        await response.prepare(request)
        if "worker-1" in request.path:
            await response.write(b"second\n")
            self.read_second.set()
        elif self.text:
            await response.write(self.text)
        else:
            count = 0
            while not self.read_second.is_set():
                await response.write(b"first\n")
                await asyncio.sleep(0.01)
                count += 1
                if count == 5:
                    self.node(1)
        await response.write_eof()
        return response


def read(server: Printing, wanted: Wanted) -> list[Line]:
    async def run() -> list[Line]:
        async with asyncio.timeout(60), server.client() as api:
            found = []
            async for line in lines(api, *KEY, wanted):
                found.append(line)
                if line.text == "second":
                    server.put(paths.job(*KEY), {**server.objects[paths.job(*KEY)], "status": ENDED})
            return found

    return asyncio.run(run())


ENDED = {"phase": "Succeeded"}


def test_a_node_that_never_pauses_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "AGAIN_SECONDS", 0.3)
    found = read(Printing(), Wanted(follow=True))
    assert Line("worker-1-0", "second") in found
    assert found.count(Line("worker-0-0", "first")) >= 5


def test_a_line_without_end_comes_in_pieces() -> None:
    bar = b"\r 12%" * (3 * 2**20 // 5)
    found = [line.text for line in read(Printing(bar + b"\n\nlast"), Wanted())]
    assert "".join(found[:-2]) == bar.decode(), "expected all of it"
    assert max(len(text) for text in found) <= reading.LINE_BYTES
    assert found[-2:] == ["", "last"]
