"""The one way to the API server: JSON in, JSON out, each call counted, retried where that is safe.

A read is tried again whatever went wrong; a write only when the server surely did not do it (429), or when
doing it twice is harmless because it names what it means (a create of a fixed name, a patch or delete with a
precondition): ours all do. Not here: which calls to make, and watches (kopf's).
"""

from __future__ import annotations

import asyncio
import builtins
import copy
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.client.connection import Connection, connection
from aurl_operator.backends.kubernetes.client.errors import ApiError, UnavailableError, error_of

Json = dict[str, Any]

SECONDS = 20.0
"""How long one try may take."""

SILENT_SECONDS = 120.0
"""How long a stream may say nothing: a connection that was dropped on the way looks the same."""

TRIES = 4

BRIEF_SECONDS = 3.0
"""How long the one try of a brief connection may take."""

PAGE = 500
"""Items of a list that are read at a time: some 50 kB of memory each, as they come."""

MERGE_PATCH = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Api:
    """A connection to one API server. Use it as an asynchronous context."""

    def __init__(
        self,
        to: Connection,
        *,
        counted: Callable[[str, int, str], None] | None = None,
        stop_after: int | None = None,
    ) -> None:
        """`counted(verb, status, resource)` is told of each try; `stop_after` is for tests, see `_stop`."""
        self.connection = to
        self.namespace = to.namespace
        self._counted = counted or (lambda verb, status, resource: None)
        # Shared with brief ones.
        self._writes = None if stop_after is None else iter(range(stop_after - 1, -1, -1))
        self._patience: tuple[int, float] | None = None
        self._session = _session(to)

    @classmethod
    async def connect(cls, context: str | None = None, **options: Any) -> Self:
        """To the cluster of the kubeconfig, or the one around us. Raises MissingError."""
        return cls(await connection(context), **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def brief(self, seconds: float | None = None) -> Self:
        """The same connection, for what can be done later as well: one try of each call, short by default."""
        other = copy.copy(self)
        other._patience = (1, BRIEF_SECONDS if seconds is None else seconds)
        return other

    def apart(self) -> Self:
        """The same server over connections of its own, to be closed, too: there nothing stands in line."""
        other = copy.copy(self)
        other._session = _session(self.connection)
        return other

    async def close(self) -> None:
        """Ends all connections."""
        await self._session.close()

    async def get(self, path: str, **query: str) -> Json:
        """Read an object or a list. Raises ApiError, as all calls do."""
        return await self._call("GET", path, query=query)

    async def metadata(self, path: str, **query: str) -> list[Json]:
        """Only the metadata of a list's items, from the API server's cache: cheap, maybe a little old."""
        query = {"resourceVersion": "0", **query}
        # An empty list of this kind is null.
        found: list[Json] = (await self._call("GET", path, query=query, accept=METADATA)).get("items") or []
        return found

    async def list(self, path: str, **query: str) -> list[Json]:
        """All items of a list."""
        return [item async for page in self.pages(path, **query) for item in page]

    async def pages(self, path: str, **query: str) -> AsyncIterator[builtins.list[Json]]:
        """The items of a list, page by page: for lists that are too long to be held whole."""
        query = {"limit": str(PAGE), **query}
        while True:
            page = await self.get(path, **query)
            yield page.get("items", [])
            more = page.get("metadata", {}).get("continue")
            if not more:
                return
            query = {**query, "continue": more}

    async def text(self, path: str, **query: str) -> str:
        """Read plain text, such as a pod's log."""
        return str((await self._call("GET", path, query=query, accept="*/*"))["text"])

    async def create(self, path: str, body: Json) -> Json:
        """Create an object of a fixed name."""
        return await self._call("POST", path, body=body, query={"fieldManager": names.FIELD_MANAGER})

    async def merge(self, path: str, body: Json) -> Json:
        """A JSON merge patch (RFC 7386): what is absent stays, null removes."""
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._call("PATCH", path, body=body, query=query, content=MERGE_PATCH)

    async def apply(self, path: str, body: Json) -> Json:
        """Server-side apply: what is ours of an object becomes as in `body`, whoever wrote it before."""
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true"}
        return await self._call("PATCH", path, body=body, query=query, content=APPLY)

    async def replace(self, path: str, body: Json) -> Json:
        """Replace an object that is still at the resourceVersion in `body`."""
        return await self._call("PUT", path, body=body, query={"fieldManager": names.FIELD_MANAGER})

    async def delete(self, path: str, *, uid: str, grace: int | None = None) -> Json:
        """Delete the very object with this UID; `grace` in seconds, None: its own."""
        body: Json = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        return await self._call("DELETE", path, body=body)

    async def lines(self, path: str, **query: str) -> aiohttp.ClientResponse:
        """A stream that stays open, such as a followed log: the caller reads and closes it.

        One try. A stream that is silent for `SILENT_SECONDS` ends with a TimeoutError: it may be cut off.
        """
        headers = await self.connection.headers()
        try:
            response = await self._session.get(
                self.connection.host + path,
                params=query,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=SECONDS, sock_read=SILENT_SECONDS),
            )
            if response.status >= 400:
                raise error_of(response.status, await response.text())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(0, type(error).__name__, f"the API server: {error}") from None
        return response

    async def _call(
        self,
        verb: str,
        path: str,
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> Json:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        last: ApiError = UnavailableError(0, "", "not tried")
        tries, seconds = self._patience or (TRIES, SECONDS)
        for attempt in range(tries):
            if attempt:
                await asyncio.sleep(random.uniform(0.5, 1.0) * 0.2 * 4 ** (attempt - 1))
            try:
                return await self._try(verb, path, data, query, content, accept, seconds)
            except UnavailableError as error:
                last = error
        raise last

    async def _try(
        self,
        verb: str,
        path: str,
        data: bytes | None,
        query: Mapping[str, str] | None,
        content: str,
        accept: str,
        seconds: float,
    ) -> Json:
        headers = {
            **await self.connection.headers(),
            "Accept": accept,
            "User-Agent": names.FIELD_MANAGER,
        }
        if data is not None:
            headers["Content-Type"] = content
        try:
            async with self._session.request(
                verb,
                self.connection.host + path,
                params=query,
                data=data,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as response:
                text = await response.text()
                self._counted(verb, response.status, _resource(path))
                if response.status >= 400:
                    raise error_of(response.status, text)
                self._stop(verb)
                found: Json = {"text": text} if accept == "*/*" else json.loads(text)
                return found
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._counted(verb, 0, _resource(path))
            words = str(error) or f"no answer in {seconds:.0f} s"
            raise UnavailableError(0, type(error).__name__, f"the API server: {words}") from None

    def _stop(self, verb: str) -> None:
        """For tests: as by power failure, the process dies when its n-th write is done and not yet known."""
        if self._writes is not None and verb in _WRITES and next(self._writes, 0) <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _session(to: Connection) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=64, ssl=to.tls if to.tls is not None else True),
        read_bufsize=2**20,
    )


def _resource(path: str) -> str:
    """`pods` of `/api/v1/namespaces/x/pods/y`, `aurltrainingjobs/status` of a status."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    return "/".join(parts[::2][:2]) if len(parts) > 2 else parts[0]
