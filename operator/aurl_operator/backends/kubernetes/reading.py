"""Reading about a job for people: its pods, and what its nodes print, from the cluster or from beside the
checkpoints when the pods cannot be read any more.

A followed log goes on with the node's next attempt after a loss, until the job has ended. Not here: the
operator's own view (cache.py), and how it is shown (commands/).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Any

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import (
    ApiError,
    ForbiddenError,
    NotFoundError,
    UnavailableError,
)
from aurl_operator.backends.kubernetes.following import followed
from aurl_operator.backends.kubernetes.kept_logs import kept_lines
from aurl_operator.backends.kubernetes.observe.process import identity
from aurl_operator.backends.kubernetes.pod_log import TRIES, Line, Reading, Wanted
from aurl_operator.errors import MissingError

ENDS = ("Succeeded", "Failed")

PAUSE_SECONDS = 0.2
"""Before the second try to read a log; four times as long before each further one."""


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

    What nodes kept of their logs stands in for pods that cannot be read. Raises MissingError if there is
    nothing to read, and ForbiddenError if it may not be read.
    """

    async def look() -> tuple[bool, list[dict[str, Any]]]:
        # Asked first: who began before the end is among the pods then.
        ended = await _ended(api, namespace, name)
        found = [pod for pod in await pods(api, namespace, name) if _is(pod, wanted) and _began(pod)]
        return ended, found

    found = await job(api, namespace, name)
    ended, readable = await look()
    readings: list[Reading] = []
    if wanted.follow and (readable or not ended):
        async for line in followed(api, look, wanted, readings):
            yield line
    else:
        for pod in readable:
            readings.append(Reading(pod, wanted))
            async for line in _whole(api, readings[-1]):
                yield line
    for line in await asyncio.to_thread(_instead, found, wanted, readings):
        yield line


async def _whole(api: Api, reading: Reading) -> AsyncGenerator[Line, None]:
    """All there is, in a few tries; `reading.error` says if it is not. Raises ForbiddenError."""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(random.uniform(0.5, 1.0) * PAUSE_SECONDS * 4 ** (attempt - 1))
        try:
            async for line in reading.lines(api):
                yield line
            return
        except ForbiddenError:
            raise
        except UnavailableError:
            continue
        except ApiError:
            return  # its machine is gone, or it has not begun


def _instead(found: dict[str, Any], wanted: Wanted, readings: list[Reading]) -> list[Line]:
    """What there is of pods that could not be read, or not to the end. Raises MissingError if nothing was."""
    bad = [reading for reading in readings if reading.error is not None]
    unread = {reading.process for reading in bad if not reading.opened}
    nothing = all(not reading.opened for reading in readings)
    kept: list[Line] = []
    if nothing:
        why = f"has pods whose logs cannot be read ({bad[-1].error})" if bad else "has no pods any more"
        return kept_lines(found, wanted, why)
    if unread:
        try:
            kept = kept_lines(found, wanted, only=unread)
        except MissingError:
            kept = []
    told = {line.process for line in kept}
    return kept + [
        Line(one.process, f"(its log {'ends here' if one.opened else 'cannot be read'}: {one.error})")
        for one in bad
        if one.process not in told
    ]


async def _ended(api: Api, namespace: str, name: str) -> bool:
    try:
        found = await api.get(paths.job(namespace, name))
    except NotFoundError:
        return True
    return (found.get("status") or {}).get("phase") in ENDS


def _is(pod: dict[str, Any], wanted: Wanted) -> bool:
    who = identity(pod)
    return who is not None and who.role.value == wanted.role and wanted.index in (None, who.index)


def _began(pod: dict[str, Any]) -> bool:
    return pod["status"].get("phase") in ("Running", "Succeeded", "Failed")
