"""Asking rank 0 of each job how far it is, over HTTP, with bounds on time, size and number.

A job is asked often while something is open, and seldom while all is well: the more jobs, the seldomer. One
that never answers (`command` jobs do not) is asked ever more seldom. A connection that was made, or refused,
tells that the network between is whole, whether an answer comes or not. Not here: what either means (core).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.cache import Cache, Entry
from aurl_operator.core.observed import Role
from aurl_operator.queue import Key
from aurl_trainer.contract import Progress, RecordError

SECONDS = 2.0
BYTES = 65536
AT_ONCE = 64
OFTEN = 1.0
"""Seconds between questions while something is open."""

SELDOM = 5.0
"""Seconds between questions while all is well and jobs are few."""

SELDOMEST = 30.0
DOUBT_SECONDS = 60.0
"""After a look at a job that met an unexpected error, its nodes are not listened to for so long: what they
say may be why, and without it the job can be worked, suspended and deleted."""

JOBS_A_SECOND = 50.0
"""Questions a second over all jobs, while all is well."""


def interval(entry: Entry, jobs: int) -> float:
    """Seconds until `entry` is asked again, without jitter."""
    usual = min(SELDOMEST, max(SELDOM, jobs / JOBS_A_SECOND))
    if entry.silent:
        return min(60.0, OFTEN * 1.5 ** min(entry.silent, 12))
    memory = entry.memory
    if memory is None or entry.progress is None or any(not i.over for i in memory.incidents):
        return OFTEN
    return usual


@dataclass(frozen=True)
class Reply:
    """What came of one question to one node."""

    reached: bool
    """Something at the other end took the connection, or refused it."""
    progress: Progress | None = None


class Poller:
    """Asks all the jobs in turn; `heard` is told of each new answer, and of nodes that are in reach again."""

    def __init__(self, cache: Cache, heard: Callable[[Key], None]) -> None:
        self._cache = cache
        self._heard = heard
        self._due: dict[Key, float] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._asking: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        connector = aiohttp.TCPConnector(limit=AT_ONCE, force_close=True)
        traces = [_connections()]
        async with aiohttp.ClientSession(
            timeout=timeout, connector=connector, trace_configs=traces
        ) as session:
            try:
                while True:
                    self._ask_who_is_due(session)
                    await asyncio.sleep(0.5)
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ask_who_is_due(self, session: aiohttp.ClientSession) -> None:
        now = asyncio.get_running_loop().time()
        for key in [k for k in self._due if k not in self._cache.entries]:
            del self._due[key]
        for key, entry in self._cache.entries.items():
            if key in self._asking or self._due.get(key, 0.0) > now or not _askable(entry):
                continue
            self._asking.add(key)
            task = asyncio.create_task(self._ask(session, key, entry))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, session: aiohttp.ClientSession, key: Key, entry: Entry) -> None:
        try:
            async with self._slots:
                before = entry.progress
                reached = await _question(entry, lambda url: _answer(session, url))
            again = reached and entry.reached(time.time())
            if entry.progress is not before or again:
                self._heard(key)
        finally:
            self._asking.discard(key)
            seconds = interval(entry, len(self._cache.entries)) * random.uniform(0.8, 1.2)
            self._due[key] = asyncio.get_running_loop().time() + seconds


def _askable(entry: Entry) -> bool:
    if entry.parsed is None or entry.parsed.spec.training is None or _doubted(entry):
        return False
    return any(_address(entry, uid) for uid in entry.pods)


def _doubted(entry: Entry) -> bool:
    return time.time() < entry.trouble_at + DOUBT_SECONDS


def _address(entry: Entry, uid: str) -> str | None:
    pod = entry.pods[uid]
    labels = pod["metadata"].get("labels") or {}
    running = pod.get("status", {}).get("phase") == "Running" and uid not in entry.vanished
    if not running or labels.get(names.ROLE) != Role.NODE.value or uid in entry.ends:
        return None
    address: str | None = pod["status"].get("podIP")
    return address


async def _question(entry: Entry, ask: Callable[[str], Awaitable[Reply]]) -> bool:
    """Asks the pod that answered as rank 0 last, else all nodes. Returns whether one was reached."""
    nodes = {uid: found for uid in entry.pods if (found := _address(entry, uid))}
    if entry.speaker in nodes:
        answer = (await ask(nodes[entry.speaker])).progress
        if answer is not None and answer.rank == 0:
            _take(entry, answer)
            return True
    entry.speaker = None
    replies = await asyncio.gather(*(ask(address) for address in nodes.values()))
    reached = any(reply.reached for reply in replies)
    for uid, reply in zip(nodes, replies, strict=True):
        if reply.progress is not None and reply.progress.rank == 0:
            entry.speaker = uid
            _take(entry, reply.progress)
            return True
    entry.silent += 1
    return reached


def _take(entry: Entry, answer: Progress) -> None:
    entry.silent = 0
    if _doubted(entry):
        return
    if entry.progress is None or _told(answer) > _told(entry.progress):
        entry.progress = answer


def _told(progress: Progress) -> tuple[float, float]:
    """When it was made, and the sign of life in it: an older world's is older, however it lives."""
    return progress.at, progress.alive_at or 0.0


def _connections() -> aiohttp.TraceConfig:
    """Notes of each question that a connection was made for it."""

    async def made(_session: aiohttp.ClientSession, context: SimpleNamespace, _made: object) -> None:
        context.trace_request_ctx.connected = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(made)
    return trace


async def _answer(session: aiohttp.ClientSession, address: str, port: int = names.PROGRESS_PORT) -> Reply:
    host = f"[{address}]" if ":" in address else address
    question = SimpleNamespace(connected=False)
    try:
        async with session.get(f"http://{host}:{port}/progress", trace_request_ctx=question) as response:
            if response.status != 200:
                return Reply(question.connected)
            body = await response.content.read(BYTES)
            while len(body) < BYTES and (more := await response.content.read(BYTES - len(body))):
                body += more
            return Reply(question.connected, Progress.from_json(body))
    except aiohttp.ClientConnectorError as error:
        # Refused by the node's kernel: nobody listens there now, and yet it is there.
        return Reply(isinstance(error.os_error, ConnectionRefusedError))
    except (aiohttp.ClientError, TimeoutError, RecordError, ValueError):
        return Reply(question.connected)
