"""What pods print, read while they print it, from an API server that streams, refuses, and cuts off."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aurl_operator.api import names
from aurl_operator.backends.kubernetes import following, pod_log, reading
from aurl_operator.backends.kubernetes.client import api as client
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.errors import ForbiddenError
from aurl_operator.backends.kubernetes.pod_log import Wanted
from aurl_operator.backends.kubernetes.reading import lines
from aurl_operator.errors import MissingError
from tests.unit.operator.kubernetes.small_server import SmallServer

KEY = ("music", "bach")
START = datetime(2026, 1, 1, tzinfo=UTC)


class Logs(SmallServer):
    """Logs as an API server gives them: with times, since a whole second, followed until the pod ends."""

    def __init__(self, **spec: Any) -> None:
        super().__init__()
        self.printed: dict[str, list[tuple[datetime, str]]] = {}
        """By pod."""
        self.refusals: list[int] = []
        """Statuses of the next answers to who opens a log."""
        self.cuts: list[int] = []
        """After so many lines, the next streams are cut off."""
        self.lulls: list[int] = []
        """After so many lines, the next streams end as if all were said."""
        self.silences: list[int] = []
        """After so many lines, the next streams say nothing more, and do not end."""
        self.opened = 0
        self.put(
            paths.job(*KEY),
            {
                "apiVersion": "aurl.dev/v1alpha1",
                "kind": "AurlTrainingJob",
                "metadata": {"name": "bach", "namespace": "music", "uid": "u"},
                "spec": {"training": {"preset": "quick_test"}, **spec},
            },
        )

    def node(self, index: int, *said: str, phase: str = "Running") -> None:
        """It runs from now on, and has said so much: two lines a second, and two at the same time."""
        labels = {names.JOB: "bach", names.ROLE: "node", names.INDEX: str(index)}
        labels |= {names.ATTEMPT: "0", names.ROUND: "1"}
        name = f"bach-worker-{index}-0"
        metadata = {"name": name, "namespace": "music", "labels": labels}
        metadata["creationTimestamp"] = f"2026-0{index + 1}"
        spec = {"containers": [{"name": names.TRAINER_CONTAINER}]}
        self.put(paths.pod("music", name), {"metadata": metadata, "spec": spec, "status": {"phase": phase}})
        self.printed[name] = [
            (START + timedelta(milliseconds=500 * (number // 2)), text) for number, text in enumerate(said)
        ]

    def end(self, phase: str = "Succeeded") -> None:
        """The job and its pods have ended."""
        for path in [paths.job(*KEY), *(paths.pod("music", name) for name in self.printed)]:
            self.put(path, {**self.objects[path], "status": {"phase": phase}})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/log") or any(part in request.path for _, part in self.forbidden):
            return await super()._answer(request)
        self.opened += 1
        if self.refusals:
            return web.json_response({"message": "dial tcp: refused"}, status=self.refusals.pop(0))
        name = request.path.split("/")[-2]
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        since = datetime.fromisoformat(request.query.get("sinceTime", "2000-01-01T00:00:00Z"))
        stops = [stops.pop(0) if stops else None for stops in (self.cuts, self.lulls, self.silences)]
        count, place = 0, 0
        if "tailLines" in request.query:
            place = max(0, len(self.printed[name]) - int(request.query["tailLines"]))
        while True:
            over = self.objects[paths.pod("music", name)]["status"]["phase"] != "Running"
            for at, text in self.printed[name][place:]:
                place += 1
                if at < since:
                    continue
                if count in stops:
                    break
                count += 1
                stamp = at.isoformat().replace("+00:00", "Z") + " "
                await response.write(f"{stamp if 'timestamps' in request.query else ''}{text}\n".encode())
            if count in stops:
                break
            if over or request.query["follow"] == "false":
                break
            await asyncio.sleep(0.02)
        if count == stops[0]:
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()
        elif count == stops[2]:
            await asyncio.Event().wait()
        else:
            await response.write_eof()
        return response


def read(server: Logs, wanted: Wanted, last: str = "", seconds: float = 60) -> list[str]:
    """All lines, as `worker-0-0 text`; the job ends when `last` was read."""

    async def run() -> list[str]:
        async with asyncio.timeout(seconds), server.client() as api:
            found = []
            async for line in lines(api, *KEY, wanted):
                found.append(f"{line.process} {line.text}")
                if line.text == last:
                    server.end()
            return found

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(reading, "PAUSE_SECONDS", 0.01)


SAID = ("one", "two", "two", "three", "four")
ALL = [f"worker-0-0 {text}" for text in SAID]


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("follow", [True, False])
def test_a_refusal_that_passes_is_waited_for(follow: bool, status: int) -> None:
    server = Logs()
    server.node(0, *SAID)
    server.refusals = [status, status]
    assert read(server, Wanted(follow=follow), "four") == ALL


@pytest.mark.parametrize("kind", ["cuts", "lulls", "silences"])
@pytest.mark.parametrize("at", range(1, 5))
def test_a_followed_log_that_is_cut_off_goes_on_where_it_was(
    at: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SILENT_SECONDS", 0.3)
    server = Logs()
    server.node(0, *SAID)
    setattr(server, kind, [at])
    assert read(server, Wanted(follow=True), "four") == ALL


def test_a_log_that_is_cut_off_while_all_of_it_is_read_goes_on_where_it_was() -> None:
    server = Logs()
    server.node(0, *SAID, phase="Failed")
    server.cuts = [2, 3]
    assert read(server, Wanted()) == ALL


def read_more(server: Logs, wanted: Wanted) -> list[str]:
    """What is read when two more lines are printed as soon as the last of SAID is read, and all ends then."""

    async def run() -> list[str]:
        async with asyncio.timeout(60), server.client() as api:
            found = []
            async for line in lines(api, *KEY, wanted):
                found.append(line.text)
                if line.text == SAID[-1]:
                    more = [(START + timedelta(seconds=9), text) for text in ("five", "six")]
                    server.printed["bach-worker-0-0"] += more
                    server.end()
            return found

    return asyncio.run(run())


def test_what_a_pod_said_after_its_stream_had_ended_is_read_when_it_is_over() -> None:
    server = Logs()
    server.node(0, *SAID)
    server.lulls = [len(SAID)]
    assert read_more(server, Wanted(follow=True)) == [*SAID, "five", "six"]


def test_a_tail_is_one_of_the_whole_not_of_each_try() -> None:
    server = Logs()
    server.node(0, *SAID)
    server.cuts = [1]
    assert read_more(server, Wanted(follow=True, tail=1)) == ["four", "five", "six"]


def test_an_api_server_that_restarts_ends_no_following(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TRIES", 1)
    server = Logs()
    server.node(0, *SAID)
    server.cuts = [2]

    async def run() -> list[str]:
        async with asyncio.timeout(60), server.client() as api:
            found = []
            async for line in lines(api, *KEY, Wanted(follow=True)):
                found.append(line.text)
                if len(found) == 2:
                    server.away = ("/",)
                    asyncio.get_running_loop().call_later(0.5, setattr, server, "away", ())
                if line.text == "four":
                    server.end()
            return found

    assert asyncio.run(run()) == [*SAID]


@pytest.mark.parametrize("follow", [True, False])
def test_who_may_not_read_logs_is_told(follow: bool) -> None:
    server = Logs()
    server.node(0, *SAID)
    server.node(1, *SAID)
    server.forbidden = (("GET", "/log"),)
    with pytest.raises(ForbiddenError, match="cannot GET"):
        read(server, Wanted(follow=follow))


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, Any]:
    """A job's `checkpoint`, beside which the first two nodes kept their tails."""
    folder = tmp_path / "run" / "logs" / "u"
    folder.mkdir(parents=True)
    (folder / "worker-0-0.log").write_text("kept 0\n")
    (folder / "worker-1-0.log").write_text("kept 1\n")
    return {"uri": f"file://{tmp_path}/run"}


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("status", [404, 500])
def test_what_was_kept_stands_in_for_pods_whose_machines_are_gone(
    status: int, follow: bool, kept: dict[str, Any]
) -> None:
    server = Logs(checkpoint=kept)
    server.node(0, *SAID)
    server.node(1, *SAID)
    server.end("Failed")
    server.refusals = [status] * 100
    assert read(server, Wanted(follow=follow)) == ["worker-0-0 kept 0", "worker-1-0 kept 1"]


def test_what_was_kept_stands_in_for_one_of_several(kept: dict[str, Any]) -> None:
    server = Logs(checkpoint=kept)
    server.node(0, *SAID)
    server.node(1, *SAID)
    server.node(2, *SAID)
    server.refusals = [404]
    rest = [f"worker-{index}-0 {text}" for index in (1, 2) for text in SAID]
    assert read(server, Wanted()) == [*rest, "worker-0-0 kept 0"]


def test_what_cannot_be_read_nor_was_kept_is_said(kept: dict[str, Any]) -> None:
    server = Logs()
    server.node(0, *SAID)
    server.node(1, "other")
    server.refusals = [404]
    assert read(server, Wanted()) == [
        "worker-1-0 other",
        "worker-0-0 (its log cannot be read: dial tcp: refused)",
    ]
    server.refusals = [404, 404]
    with pytest.raises(MissingError, match=r"cannot be read \(dial tcp: refused\).*kept no logs"):
        read(server, Wanted())


class Printing(Logs):
    """The first node prints without a pause for as long as the second has not been read."""

    def __init__(self, text: bytes = b"") -> None:
        super().__init__()
        self.text = text
        """What the first prints in place of that."""
        self.read_second = asyncio.Event()
        self.node(0)

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


def test_a_node_that_never_pauses_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "AGAIN_SECONDS", 0.3)
    found = read(Printing(), Wanted(follow=True), "second")
    assert "worker-1-0 second" in found
    assert found.count("worker-0-0 first") >= 5


def test_a_line_without_end_comes_in_pieces() -> None:
    bar = b"\r 12%" * (3 * 2**20 // 5)
    told = read(Printing(b"2026-01-01T00:00:00.5Z " + bar + b"\n2026-01-01T00:00:01Z \nlast"), Wanted())
    found = [text.removeprefix("worker-0-0 ") for text in told]
    assert "".join(found[:-2]) == bar.decode(), "expected all of it"
    assert max(len(text) for text in found) <= pod_log.LINE_BYTES
    assert found[-2:] == ["", "last"]
