"""The contract's progress endpoint: `GET /progress` answers where this rank stands.

Here: a small HTTP server in a daemon thread. Not here: what progress is (contract.py), and Prometheus.

The training loop hands over a finished `Progress`; it is turned into JSON only when somebody asks, in the
server's thread, so that `update` costs one assignment and no request ever waits for a step.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from aurl_trainer.contract import Progress

log = logging.getLogger(__name__)

_REQUEST_SECONDS = 10.0  # a client that stays silent longer is dropped


class ProgressServer:
    """Serves the newest `Progress`; a context manager. With `port` None nothing is served.

    `GET /progress` answers 200 with the record, 503 before the first `update`; `GET /healthz` answers 200.
    """

    def __init__(
        self,
        port: int | None,
        host: str = "127.0.0.1",
        alive: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Listens at `host:port`; port 0 takes any free one. A port that is taken is logged, not raised.

        `alive`: when the rank last showed life, which may be long after its last `update`.
        """
        self._alive = alive
        self._latest: Progress | None = None
        self._server: _Server | None = None
        if port is None:
            return
        try:
            self._server = _Server((host, port), _Handler, self)
        except OSError as error:
            log.warning("progress is not served: %s:%d: %s", host, port, error.strerror)
            return
        threading.Thread(target=self._server.serve_forever, name="progress", daemon=True).start()

    @property
    def port(self) -> int | None:
        """The port that is served, None if there is none."""
        return None if self._server is None else int(self._server.server_address[1])

    @property
    def latest(self) -> Progress | None:
        """What `update` was given last, with the newest sign of life."""
        latest = self._latest
        return None if latest is None else replace(latest, alive_at=self._alive())

    def update(self, progress: Progress) -> None:
        """Answers with `progress` from now on. Never blocks."""
        self._latest = progress

    def close(self) -> None:
        """Stops listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # A frozen process accepts nothing, but its kernel takes this many connections: the operator tells by them
    # that the node is there, and judges a hang.
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], owner: ProgressServer
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)
        self.owner = owner

    def server_bind(self) -> None:
        """Binds without HTTPServer's reverse look-up of the host's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no matter for the training log."""
        log.debug("progress request from %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _REQUEST_SECONDS

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        latest = self.server.owner.latest
        if path == "/healthz":
            self._answer(200, b"ok\n", "text/plain; charset=utf-8")
        elif path != "/progress":
            self._answer(404, b"try /progress or /healthz\n", "text/plain; charset=utf-8")
        elif latest is None:
            self._answer(503, b"no progress yet\n", "text/plain; charset=utf-8")
        else:
            self._answer(200, latest.to_json().encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)
