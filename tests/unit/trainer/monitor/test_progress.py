"""The progress endpoint answers, and never holds up who reports to it."""

from __future__ import annotations

import dataclasses
import http.client
import logging
import socket
import subprocess
import sys
import time

import pytest

from aurl_trainer.contract import Phase, Progress
from aurl_trainer.engine.survival.heartbeat import Heartbeat
from aurl_trainer.monitor.progress import ProgressServer
from tests.addresses import NEEDS_IPV6

PROGRESS = Progress(
    rank=0, world=2, generation=3, phase=Phase.STEP, step=41, total_steps=200, at=1000.0, loss=1.5
)


def get(server: ProgressServer, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
    assert server.port is not None
    connection = http.client.HTTPConnection(host, server.port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_newest_progress_is_served() -> None:
    with ProgressServer(0) as server:
        assert get(server, "/progress")[0] == 503
        server.update(PROGRESS)
        server.update(dataclasses.replace(PROGRESS, step=42))
        status, body = get(server, "/progress")
        assert status == 200
        assert Progress.from_json(body) == dataclasses.replace(PROGRESS, step=42)


def test_a_sign_of_life_is_told_that_came_after_the_progress() -> None:
    beats = Heartbeat()
    with ProgressServer(0, alive=lambda: beats.alive_at) as server:
        server.update(PROGRESS)
        assert Progress.from_json(get(server, "/progress")[1]).alive_at is None
        before = time.time()
        beats.phase(Phase.EVALUATE, 7)
        alive = Progress.from_json(get(server, "/progress")[1]).alive_at
        assert alive is not None and alive >= before


def test_health_and_unknown_paths() -> None:
    with ProgressServer(0) as server:
        assert get(server, "/healthz?verbose=1") == (200, b"ok\n")
        assert get(server, "/etc/passwd")[0] == 404


@NEEDS_IPV6
def test_an_address_of_ipv6_is_served_as_well() -> None:
    with ProgressServer(0, "::1") as server:
        assert get(server, "/healthz", "::1") == (200, b"ok\n")


def test_without_a_port_nothing_is_served() -> None:
    with ProgressServer(None) as server:
        server.update(PROGRESS)
        assert server.port is None and server.latest == PROGRESS


def test_a_taken_port_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with ProgressServer(0) as first, caplog.at_level(logging.WARNING), ProgressServer(first.port) as second:
        second.update(PROGRESS)
        assert second.port is None
    assert "progress is not served" in caplog.text


def test_a_silent_client_holds_up_nobody() -> None:
    with ProgressServer(0) as server:
        assert server.port is not None
        with socket.create_connection(("127.0.0.1", server.port), timeout=30):
            server.update(PROGRESS)
            assert get(server, "/progress")[0] == 200


@pytest.mark.processes
def test_it_dies_with_the_process() -> None:
    code = (
        "import socket\n"
        "from aurl_trainer.monitor.progress import ProgressServer\n"
        "server = ProgressServer(0)\n"
        "client = socket.create_connection(('127.0.0.1', server.port))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
