"""An API server of a few objects over real HTTP, which can be told to be away for some of them.

It creates, reads, merges and deletes, with versions and conflicts; it checks nothing. What a real one makes
of our objects is tested in tests/integration/apiserver; this one is for what a real one cannot be made to do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from kubernetes.client import Configuration

from aurl_operator.backends.kubernetes.client.api import APPLY, Api
from aurl_operator.backends.kubernetes.client.connection import Connection
from tests.unit.operator.kubernetes.test_plain import merged

KINDS = ("aurltrainingjobs", "pods", "events")
"""What can be listed."""


class SmallServer:
    """Objects by path."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.away: tuple[str, ...] = ()
        """Parts of paths: a call to such a path is answered by 503."""
        self.silent: tuple[str, ...] = ()
        """Parts of paths: a call to such a path is never answered."""
        self.forbidden: tuple[tuple[str, str], ...] = ()
        """Verbs of HTTP and parts of paths: such a call is answered by 403."""
        self.unknown: tuple[str, ...] = ()
        """Parts of paths: such a kind does not exist here, as one whose definition is not installed."""
        self.missing: tuple[str, ...] = ()
        """Parts of paths: a call to such a path is answered as in a namespace that is gone."""
        self.broken: dict[tuple[str, str], str] = {}
        """By verb of HTTP and part of a path: words with which such a call is answered by 500."""
        self.unanswered: tuple[tuple[str, str], ...] = ()
        """Verbs of HTTP and parts of paths: such a call is carried out, and answered by 500 all the same."""
        self.late: dict[str, list[dict[str, Any]]] = {}
        """Lists by path, as a cache that is behind has them: for whoever asks for any version."""
        self.asked: list[tuple[str, str]] = []
        """Verb of HTTP and path of each call."""
        self._version = 0

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Api]:
        """Answers, and gives a client, while entered."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            to = Connection(f"http://{host}:{port}", None, Configuration(), "default")
            async with Api(to) as api:
                yield api
        finally:
            await runner.cleanup()

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Stores an object as it is."""
        self._version += 1
        metadata = {"uid": f"uid-{self._version}", **body["metadata"], "resourceVersion": str(self._version)}
        self.objects[path] = {**body, "metadata": metadata}
        return self.objects[path]

    def named(self, kind: str) -> list[dict[str, Any]]:
        """All objects of one kind, in the order in which they were made."""
        return [found for path, found in self.objects.items() if f"/{kind}/" in path]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        if any(part in request.path for part in self.away):
            return web.json_response({"message": "away"}, status=503)
        if any(part in request.path for part in self.silent):
            await asyncio.Event().wait()
        if any(part in request.path for part in self.unknown):
            return web.Response(status=404, text="404 page not found\n")
        if any(part in request.path for part in self.missing):
            namespace = request.path.partition("/namespaces/")[2].partition("/")[0]
            words = f'namespaces "{namespace}" not found'
            return web.json_response({"reason": "NotFound", "message": words}, status=404)
        for verb, part in self.forbidden:
            if request.method == verb and part in request.path:
                words = f'x "{request.path}" is forbidden: User "operator" cannot {verb} {part}'
                return web.json_response({"message": words}, status=403)
        for (verb, part), words in self.broken.items():
            if request.method == verb and part in request.path:
                return web.json_response({"message": words}, status=500)
        if request.query.get("resourceVersion") == "0" and request.path in self.late:
            return web.json_response({"items": self.late[request.path]})
        sent = await request.json() if request.can_read_body else {}
        status, body = self._done(request.method, request.path, request.content_type, sent)
        if any(request.method == verb and part in request.path for verb, part in self.unanswered):
            return web.json_response({"message": "no answer in time"}, status=500)
        return web.json_response(body, status=status)

    def _done(self, verb: str, path: str, kind: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        part = "/status" if path.endswith("/status") else ""
        path = path.removesuffix(part)
        if verb == "POST":
            path = f"{path}/{body['metadata']['name']}"
            return (409, {"message": "exists"}) if path in self.objects else (201, self.put(path, body))
        if verb == "GET" and path.rpartition("/")[2] in KINDS:
            return 200, {"items": [found for at, found in self.objects.items() if at.startswith(f"{path}/")]}
        known = self.objects.get(path)
        if known is None and verb == "PATCH" and kind == APPLY:
            return 201, self.put(path, body)
        if known is None:
            return 404, {"message": "not found"}
        if verb == "GET":
            return 200, known
        if verb == "DELETE" and known["metadata"].get("finalizers"):
            if "deletionTimestamp" in known["metadata"]:
                return 200, known
            going = {**known["metadata"], "deletionTimestamp": "2026-01-31T12:00:00Z"}
            return 200, self.put(path, {**known, "metadata": going})
        if verb == "DELETE":
            return 200, self.objects.pop(path)
        if body["metadata"].get("resourceVersion") not in (None, known["metadata"]["resourceVersion"]):
            return 409, {"message": "changed"}
        return 200, self.put(path, body if verb == "PUT" else merged(known, body))
