"""Asking for progress: frozen, broken and flooding nodes cost nobody else an answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from aurl_operator.backends.local import progress
from aurl_operator.backends.local.process.ports import free_port
from aurl_operator.backends.local.progress import BYTES, Poller
from aurl_trainer.contract import Progress

GOOD = Progress(rank=0, world=2, generation=1, phase="step", step=7, total_steps=9, at=1.0)


@pytest.fixture
def poller() -> Iterator[Poller]:
    one = Poller()
    yield one
    one.close()


class Node:
    """Answers each connection with `parts`, `pause` seconds between them."""

    def __init__(self, *parts: bytes, pause: float = 0.0) -> None:
        self.parts, self.pause = parts, pause
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(4096)
                    for part in self.parts:
                        connection.sendall(part)
                        time.sleep(self.pause)
                except OSError:
                    continue


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.0 " + status + b"\r\nContent-Type: application/json\r\n\r\n" + body


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for every good answer, however slow the machine is."""
    monkeypatch.setattr(progress, "SECONDS", 60.0)


@pytest.mark.usefixtures("patient")
def test_a_good_answer_is_read_in_any_pieces(poller: Poller) -> None:
    text = answer(GOOD.to_json().encode())
    whole, pieces = Node(text), Node(*(text[i : i + 40] for i in range(0, len(text), 40)), pause=0.01)
    assert poller.ask({"a": whole.port, "b": pieces.port}) == {"a": GOOD, "b": GOOD}


def test_bad_nodes_are_left_out_and_hold_nobody_up(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 3.0  # enough for the good answer on a slow machine
    monkeypatch.setattr(progress, "SECONDS", seconds)
    # The kernel accepts, nobody answers.
    frozen = [socket.create_server(("127.0.0.1", 0)) for _ in range(20)]
    ports = {
        "good": Node(answer(GOOD.to_json().encode())).port,
        **{f"frozen {n}": one.getsockname()[1] for n, one in enumerate(frozen)},
        "gone": free_port(),
        "error": Node(answer(GOOD.to_json().encode(), b"500 Oops")).port,
        "nonsense": Node(b"\x00\xff nonsense").port,
        "not a record": Node(answer(b"[1, 2]")).port,
        "drip": Node(*[b"H"] * 1000, pause=0.05).port,
        "flood": Node(answer(b"x" * (8 * BYTES))).port,
    }
    started = time.monotonic()
    assert poller.ask(ports) == {"good": GOOD}
    assert time.monotonic() - started < 10 * seconds, "all nodes share the time of one"
    for one in frozen:
        one.close()


def test_no_nodes_no_answers(poller: Poller) -> None:
    assert poller.ask({}) == {}


@pytest.mark.usefixtures("patient")
def test_whether_a_store_accepts_connections(poller: Poller) -> None:
    assert poller.accepts(Node().port)
    assert not poller.accepts(free_port())
