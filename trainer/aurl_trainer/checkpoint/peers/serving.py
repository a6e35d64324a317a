"""A node serves the packs on its disk to its peers, while a world loads its checkpoint and no longer.

One that asks needs the world's token, which its ranks learn from rank 0 over their process group. Nothing but
whole packs is served, by the very names that are kept. Not here: asking (nearby.py).
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import socket
import socketserver
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aurl_trainer.store.kept import KeptPacks

log = logging.getLogger(__name__)

REQUEST_SECONDS = 10.0
"""A client that stays silent longer is dropped."""

BLOCK_BYTES = 2**20

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})")


class PackServer:
    """Serves `kept` at `host` on a port of its own until it is closed. Raises OSError if it cannot listen."""

    def __init__(self, kept: KeptPacks, token: str, host: str) -> None:
        self._server = _Server((host, 0), _Handler, kept, token)
        threading.Thread(target=self._server.serve_forever, name="peers", daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        """Where peers ask."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()


def own_address(env: Mapping[str, str] = os.environ) -> str:
    """This node's address on the network where the ranks meet: the one that the way to rank 0 begins with."""
    try:
        where = socket.getaddrinfo(env["MASTER_ADDR"], int(env["MASTER_PORT"]), type=socket.SOCK_DGRAM)
        family, kind, protocol, _, target = where[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)  # sends nothing: only the route is chosen
            return str(probe.getsockname()[0])
    except (KeyError, ValueError, OSError):
        return "127.0.0.1"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], kept: KeptPacks, token: str
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)
        self.kept = kept
        self.token = token

    def server_bind(self) -> None:
        """Binds without HTTPServer's reverse look-up of the host's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away is no matter for the training log."""
        log.debug("a peer's request from %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_SECONDS

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
            self._refuse(403)
            return
        name = self.path.removeprefix("/")
        size = self.server.kept.sizes().get(name)
        wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
        if size is None or wanted is None:
            self._refuse(404)
            return
        start, end = int(wanted[1]), int(wanted[2]) + 1
        if not 0 <= start < end <= size:
            self._refuse(416)
            return
        try:
            file = self.server.kept.open(name)
        except OSError:
            self._refuse(404)
            return
        with file:
            self.send_response(206)
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            file.seek(start)
            left = end - start
            while left and (block := file.read(min(BLOCK_BYTES, left))):
                self.wfile.write(block)
                left -= len(block)

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)
