"""One pod's log: read on from where it was cut off, no line twice.

Lines are asked for with their times, since those say where a reading was. Not here: which pods, and when to
try again (reading.py, following.py).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ApiError, UnavailableError

TRIES = 4
"""In a row, to read the log of a pod that has ended."""

LINE_BYTES = 65536
"""A longer line comes in pieces: a progress bar that returns to the line's start never ends it."""

Stamp = tuple[int, int]
"""A line's time: seconds since the epoch, and nanoseconds."""

_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ")


@dataclass(frozen=True)
class Wanted:
    """Which lines to read."""

    index: int | None = None
    """Of one node; None: of all."""
    role: str = "node"
    """Or `store`."""
    follow: bool = False
    since: datetime | None = None
    tail: int | None = None


@dataclass(frozen=True)
class Line:
    """One line and the process that printed it, as in `worker-1-0`."""

    process: str
    text: str


class Reading:
    """How far one pod's log is read."""

    def __init__(self, pod: dict[str, Any], wanted: Wanted) -> None:
        metadata = pod["metadata"]
        self.process = str(metadata["name"]).removeprefix(f"{metadata['labels'][names.JOB]}-")
        self.opened = False
        """Whether any try could read."""
        self.error: ApiError | None = None
        """Why the last try ended before the log did."""
        self._path = paths.pod(metadata["namespace"], metadata["name"], "log")
        self._container = container(pod)
        self._wanted = wanted
        self._last: Stamp | None = None
        """The time of the last line that was passed on."""
        self._same = 0
        """How many lines of that time were."""

    async def lines(self, api: Api) -> AsyncGenerator[Line, None]:
        """What is new, to the log's end; followed, to the container's. Raises ApiError, if cut off too."""
        try:
            async for line in self._lines(api):
                yield line
        except ApiError as error:
            self.error = error
            raise
        self.error = None

    async def _lines(self, api: Api) -> AsyncGenerator[Line, None]:
        response = await api.lines(self._path, **self._query())
        self.opened = True
        # The server gives whole seconds again: what was passed on is left out, until something is new.
        before, left, known = self._last, self._same, self._last is not None
        stamp: Stamp | None = None
        try:
            async for row, begins, ends in _rows(response.content.iter_any()):
                piece = row
                if begins:
                    stamp, piece = stamped(row)
                    if known and stamp is not None and before is not None:
                        left -= stamp == before
                        known = stamp < before or (stamp == before and left >= 0)
                if known:
                    continue
                if ends and stamp is not None:
                    self._same = self._same + 1 if stamp == self._last else 1
                    self._last = stamp
                yield Line(self.process, piece.decode(errors="replace"))
        except (aiohttp.ClientError, OSError) as error:
            raise UnavailableError(0, type(error).__name__, f"cut off: {error}") from None
        finally:
            response.close()

    def _query(self) -> dict[str, str]:
        wanted = self._wanted
        query = {"container": self._container, "follow": str(wanted.follow).lower(), "timestamps": "true"}
        since = wanted.since if self._last is None else datetime.fromtimestamp(self._last[0], UTC)
        if since is not None:
            query["sinceTime"] = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if wanted.tail is not None and self._last is None:
            query["tailLines"] = str(wanted.tail)
        return query


def container(pod: dict[str, Any]) -> str:
    """The name of ours among the pod's containers."""
    found: list[str] = [c["name"] for c in pod["spec"]["containers"]]
    return next((name for name in found if name in names.CONTAINERS), found[0])


def stamped(row: bytes) -> tuple[Stamp | None, bytes]:
    """A line's time and its text; None for what the server says itself."""
    found = _STAMP.match(row)
    if found is None:
        return None, row
    try:
        at = datetime.fromisoformat((found[1] + found[3]).decode())
    except ValueError:
        return None, row
    return (int(at.timestamp()), int((found[2] or b"0").ljust(9, b"0"))), row[found.end() :]


async def _rows(chunks: AsyncIterable[bytes]) -> AsyncGenerator[tuple[bytes, bool, bool], None]:
    """Lines, or pieces of long ones; whether each is a line's first, and its last."""
    rest, begins = b"", True
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for row in whole:
            for place in range(0, len(row) or 1, LINE_BYTES):
                yield row[place : place + LINE_BYTES], begins, place + LINE_BYTES >= len(row)
                begins = False
            begins = True
        while len(rest) > LINE_BYTES:
            yield rest[:LINE_BYTES], begins, False
            rest, begins = rest[LINE_BYTES:], False
    if rest:
        yield rest, begins, True
