"""An HTTP proxy before a real store server: chosen requests fail the way stores and networks do."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Seen:
    """One request: how many came before it, its method, and its path with the query."""

    number: int
    method: str
    path: str

    @property
    def writes(self) -> bool:
        """Whether it is meant to change something."""
        return self.method in ("PUT", "POST", "PATCH", "DELETE")

    @property
    def lists(self) -> bool:
        """Whether it asks what there is: of S3, Azure or GCS."""
        path, _, query = self.path.partition("?")
        return self.method == "GET" and ("list-type=" in query or "comp=list" in query or path.endswith("/o"))


@dataclass(frozen=True)
class Answer:
    """What happens to a request. Default: it is passed on, and the answer comes back.

    `status`: answered by the proxy, the server never sees it. `reset`: the connection is reset in place of an
    answer; with `arrives` only after the server has done it. `delay`: seconds of silence first.
    """

    status: int | None = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    reset: bool = False
    arrives: bool = False
    delay: float = 0.0


PASS = Answer()
Rule = Callable[[Seen], Answer]
Answered = tuple[int, dict[str, str], bytes]
"""Status, headers, content."""


class Proxy:
    """Listens on `url`; `rule` decides over each request, and `seen` holds all since `reset`.

    A listing is answered as it was up to `stale` seconds ago, as by stores that list late.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.rule: Rule = lambda seen: PASS
        self.seen: list[Seen] = []
        self.stale = 0.0
        self.listings: dict[str, tuple[float, Answered]] = {}
        self.lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                _handle(proxy, self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = handle_one  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self, rule: Rule | None = None, *, stale: float = 0.0) -> None:
        """From now on `rule` and `stale` hold, and counting begins at zero."""
        with self.lock:
            self.seen = []
            self.stale = stale
            self.listings = {}
            self.rule = rule or (lambda seen: PASS)

    def close(self) -> None:
        """Listens no more."""
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def proxied(upstream: str) -> Iterator[Proxy]:
    """A proxy before the server at `upstream`."""
    proxy = Proxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()


def _handle(proxy: Proxy, handler: BaseHTTPRequestHandler) -> None:
    body = _body(handler)
    with proxy.lock:
        seen = Seen(len(proxy.seen), handler.command, handler.path)
        proxy.seen.append(seen)
        answer = proxy.rule(seen)
    time.sleep(answer.delay)
    if answer.reset and not answer.arrives:
        _reset(handler)
        return
    if answer.status is not None:
        _send(handler, answer.status, answer.headers, answer.body)
        return
    status, headers, content = _listed(proxy, seen) or _forward(proxy.upstream, handler, body)
    if seen.lists:
        with proxy.lock:
            proxy.listings.setdefault(seen.path, (time.monotonic(), (status, headers, content)))
    if answer.reset:
        _reset(handler)
        return
    _send(handler, status, headers, content)


def _listed(proxy: Proxy, seen: Seen) -> Answered | None:
    """What the same listing was answered with, if that is not too old."""
    with proxy.lock:
        at, answered = proxy.listings.get(seen.path, (0.0, None))
        if answered is not None and time.monotonic() - at < proxy.stale:
            return answered
        proxy.listings.pop(seen.path, None)
        return None


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Expect", "").lower() == "100-continue":
        handler.send_response_only(100)
        handler.end_headers()
    if "chunked" in handler.headers.get("Transfer-Encoding", "").lower():
        parts = []
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            parts.append(handler.rfile.read(size))
            handler.rfile.readline()
        handler.rfile.readline()
        return b"".join(parts)
    return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))


_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


def _forward(upstream: str, handler: BaseHTTPRequestHandler, body: bytes) -> Answered:
    connection = http.client.HTTPConnection(upstream, timeout=60)
    try:
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in _OF_ONE_CONNECTION}
        connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        content = response.read()
        kept = {k: v for k, v in response.getheaders() if k.lower() not in _OF_ONE_CONNECTION}
        if handler.command == "HEAD" and (length := response.getheader("Content-Length")):
            kept["Content-Length"] = length
        return response.status, kept, content
    finally:
        connection.close()


def _send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes) -> None:
    with contextlib.suppress(OSError):
        handler.send_response_only(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if not any(name.lower() == "content-length" for name in headers):
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)


def _reset(handler: BaseHTTPRequestHandler) -> None:
    # Closing with a linger time of zero sends a reset, not an end.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.close()
