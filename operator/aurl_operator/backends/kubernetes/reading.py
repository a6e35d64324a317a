"""Reading about a job for people: its pods, and what its nodes print, from the cluster or from beside the
checkpoints when the pods are gone.

A followed log goes on with the node's next attempt after a loss, until the job has ended. Not here: the
operator's own view (cache.py), and how it is shown (commands/).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp

from aurl_operator.api import names
from aurl_operator.api.load import parse_object
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ApiError, NotFoundError
from aurl_operator.backends.kubernetes.observe.process import identity
from aurl_operator.errors import MissingError
from aurl_operator.launch.experiment import experiment
from aurl_trainer.contract import RunFile

ENDS = ("Succeeded", "Failed")
AGAIN_SECONDS = 1.0
"""Between looks for the next attempt of a node."""

LINE_BYTES = 65536
"""A longer line comes in pieces: a progress bar that returns to the line's start never ends it."""


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


async def job(api: Api, namespace: str, name: str) -> dict[str, Any]:
    """The job's object. Raises MissingError."""
    try:
        return await api.get(paths.job(namespace, name))
    except NotFoundError:
        raise MissingError(f"no job {name} in namespace {namespace}; see: kubectl get atj -A") from None


async def pods(api: Api, namespace: str, name: str) -> list[dict[str, Any]]:
    """The job's pods, oldest first."""
    found = await api.list(paths.pods(namespace), labelSelector=f"{names.SELECTOR},{names.JOB}={name}")
    return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


async def lines(api: Api, namespace: str, name: str, wanted: Wanted) -> AsyncGenerator[Line, None]:
    """What the job's processes printed, one process after the other; followed, all of them at once.

    Raises MissingError if there is nothing to read.
    """
    found = await job(api, namespace, name)
    readable = [pod for pod in await pods(api, namespace, name) if _is(pod, wanted) and _began(pod)]
    ended = (found.get("status") or {}).get("phase") in ENDS
    if wanted.follow and (readable or not ended):
        async for line in _followed(api, namespace, name, wanted):
            yield line
        return
    if readable:
        for pod in readable:
            async for line in _of_pod(api, pod, wanted):
                yield line
        return
    kept = await asyncio.to_thread(kept_lines, found, wanted)
    for line in kept:
        yield line


async def _followed(api: Api, namespace: str, name: str, wanted: Wanted) -> AsyncGenerator[Line, None]:
    queue: asyncio.Queue[Line] = asyncio.Queue(1000)
    tasks: dict[str, asyncio.Task[None]] = {}

    async def read(pod: dict[str, Any]) -> None:
        async for line in _of_pod(api, pod, wanted):
            await queue.put(line)

    async def find() -> None:
        """Reads each pod that begins, until the job has ended and all is read."""
        while True:
            # Asked first: who began before the end is among the pods then.
            ended = await _ended(api, namespace, name)
            for pod in await pods(api, namespace, name):
                uid = pod["metadata"]["uid"]
                if uid not in tasks and _is(pod, wanted) and _began(pod):
                    tasks[uid] = asyncio.create_task(read(pod))
            if ended and all(task.done() for task in tasks.values()):
                return
            await asyncio.sleep(AGAIN_SECONDS)

    # Beside the reading: a node that never pauses must not hide the others and those that replace them.
    finding = asyncio.create_task(find())
    try:
        while not (finding.done() and queue.empty()):
            with contextlib.suppress(TimeoutError):
                yield await asyncio.wait_for(queue.get(), AGAIN_SECONDS)
        finding.result()
    finally:
        for task in (finding, *tasks.values()):
            task.cancel()


async def _ended(api: Api, namespace: str, name: str) -> bool:
    try:
        found = await api.get(paths.job(namespace, name))
    except NotFoundError:
        return True
    return (found.get("status") or {}).get("phase") in ENDS


async def _of_pod(api: Api, pod: dict[str, Any], wanted: Wanted) -> AsyncGenerator[Line, None]:
    metadata = pod["metadata"]
    query = {"container": _container(pod), "follow": "true" if wanted.follow else "false"}
    if wanted.since is not None:
        query["sinceTime"] = wanted.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if wanted.tail is not None:
        query["tailLines"] = str(wanted.tail)
    process = str(metadata["name"]).removeprefix(f"{metadata['labels'][names.JOB]}-")
    try:
        response = await api.lines(paths.pod(metadata["namespace"], metadata["name"], "log"), **query)
    except ApiError:
        return  # not started yet, or gone with its machine
    try:
        async for row in _rows(response.content.iter_any()):
            yield Line(process, row.decode(errors="replace"))
    except (aiohttp.ClientError, OSError):
        return  # its machine went while it spoke
    finally:
        response.close()


async def _rows(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for row in whole:
            for piece in range(0, len(row) or 1, LINE_BYTES):
                yield row[piece : piece + LINE_BYTES]
        while len(rest) > LINE_BYTES:
            yield rest[:LINE_BYTES]
            rest = rest[LINE_BYTES:]
    if rest:
        yield rest


def _container(pod: dict[str, Any]) -> str:
    ours = {names.TRAINER_CONTAINER, names.STORE_CONTAINER, names.CLEANER_CONTAINER}
    found: list[str] = [c["name"] for c in pod["spec"]["containers"]]
    return next((name for name in found if name in ours), found[0])


def _is(pod: dict[str, Any], wanted: Wanted) -> bool:
    who = identity(pod)
    return who is not None and who.role.value == wanted.role and wanted.index in (None, who.index)


def _began(pod: dict[str, Any]) -> bool:
    return pod["status"].get("phase") in ("Running", "Succeeded", "Failed")


def last(text: str, count: int | None) -> list[str]:
    """The last `count` lines of `text`; None: all."""
    rows = text.splitlines()
    return rows if count is None else rows[max(0, len(rows) - count) :]


def kept_lines(found: dict[str, Any], wanted: Wanted) -> list[Line]:
    """The tails that nodes kept beside their checkpoints. Raises MissingError if none is as wanted."""
    name = found["metadata"]["name"]
    if wanted.role != "node":
        raise MissingError(f"{name} has no {wanted.role} pod any more, and only nodes keep their logs")
    if wanted.since is not None:
        raise MissingError(f"{name} has no pods any more, and kept logs have no times: ask without --since")
    wanted_job = parse_object(found)
    known = experiment(wanted_job)
    uri = wanted_job.spec.checkpoint.uri if known is None else known.checkpoint.uri
    if uri is None:
        raise MissingError(f"{name} has no pods any more, and kept no logs: it has no checkpoint.uri")
    import fsspec

    place = f"{uri}/{RunFile.LOGS}/{found['metadata']['uid']}"
    try:
        fs, path = fsspec.core.url_to_fs(place)
        files = sorted(str(p) for p in fs.ls(path, detail=False) if str(p).endswith(".log"))
        texts = {file: fs.cat_file(file).decode(errors="replace") for file in files}
    except Exception as error:
        raise MissingError(
            f"{name} has no pods any more, and its kept logs at {place} cannot be read: {error}"
        ) from None
    result: list[Line] = []
    for file, text in texts.items():
        process = file.rpartition("/")[2].removesuffix(".log")
        if wanted.index is not None and not process.startswith(f"worker-{wanted.index}-"):
            continue
        result += [Line(process, row) for row in last(text, wanted.tail)]
    if not result:
        raise MissingError(f"{name} has no pods any more, and no logs are kept at {place}")
    return result
