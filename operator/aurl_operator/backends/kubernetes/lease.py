"""Who works, of several replicas: an election by a Lease. Deciding is plain; one class asks the API server.

A holder that has not renewed for `DURATION` seconds, measured on the clock of the one who watches, has lost
it: clocks of machines are never compared. Source: the protocol of client-go's leaderelection.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ApiError, ConflictError, NotFoundError

log = logging.getLogger(__name__)

DURATION = 15.0
"""Seconds without renewal after which others may take the Lease."""

DEADLINE = 10.0
"""Seconds without a renewal of our own after which we stop work: less than `DURATION`."""

MARGIN = 1.0
"""Seconds before others may take the Lease in which we do not work, however late a renewal was answered."""

RETRY = 2.0


@dataclass(frozen=True)
class Seen:
    """The Lease's last change, and when we saw it on our own clock."""

    version: str
    holder: str
    at: float


def may_take(seen: Seen | None, me: str, now: float) -> bool:
    """Whether the Lease is ours, nobody's, or of a holder that has been silent for too long."""
    return seen is None or seen.holder in ("", me) or now - seen.at > DURATION


class Lease:
    """One replica's view of the Lease."""

    def __init__(self, api: Api, namespace: str, name: str, me: str) -> None:
        self._api = api
        self._namespace, self._name, self._me = namespace, name, me
        self._seen: Seen | None = None
        self._object: dict[str, Any] | None = None

    async def acquire(self) -> None:
        """Waits until the Lease is ours."""
        while not await self._try():
            await asyncio.sleep(RETRY)
        log.info("leader: %s holds the Lease %s/%s", self._me, self._namespace, self._name)

    async def hold(self) -> None:
        """Renews until that fails for too long: then it returns, and no work may go on."""
        clock = asyncio.get_running_loop().time
        until = clock() + DEADLINE
        while (left := until - clock()) > 0:
            await asyncio.sleep(min(RETRY, left))
            began = clock()
            try:
                async with asyncio.timeout(max(0.0, until - began)):
                    ours = await self._try()
            except TimeoutError:
                continue
            if ours:
                # Others count from our write, which is done before its answer is here.
                until = min(clock() + DEADLINE, began + DURATION - MARGIN)
            elif self._seen is not None and self._seen.holder != self._me:
                break
        log.error("the Lease is lost: work stops")

    async def release(self) -> None:
        """Hands over at once instead of letting it run out."""
        if self._object is None or self._seen is None or self._seen.holder != self._me:
            return
        try:
            try:
                await self._hand_over(self._object)
            except ConflictError:
                # A renewal was done when it was given up, and not answered yet.
                found = await self._api.get(self._path())
                if (found.get("spec") or {}).get("holderIdentity") == self._me:
                    await self._hand_over(found)
        except ApiError as error:
            log.warning("the Lease was not handed over: %s", error.message)

    async def _hand_over(self, lease: dict[str, Any]) -> None:
        spec = {**(lease.get("spec") or {}), "holderIdentity": "", "leaseDurationSeconds": 1}
        await self._api.replace(self._path(), {**lease, "spec": spec})

    async def _try(self) -> bool:
        now = asyncio.get_running_loop().time()
        try:
            self._take_in(await self._api.get(self._path()), now)
        except NotFoundError:
            self._object, self._seen = None, None
        except ApiError as error:
            log.warning("the Lease cannot be read: %s", error.message)
            return False
        if not may_take(self._seen, self._me, now):
            return False
        try:
            if self._object is None:
                done = await self._api.create(paths.leases(self._namespace), self._mine({}))
            else:
                done = await self._api.replace(self._path(), self._mine(self._object))
        except ConflictError:
            return False
        except ApiError as error:
            log.warning("the Lease cannot be written: %s", error.message)
            return False
        self._take_in(done, now)
        return True

    def _take_in(self, found: dict[str, Any], now: float) -> None:
        version = found["metadata"]["resourceVersion"]
        if self._seen is None or self._seen.version != version:
            self._seen = Seen(version, (found.get("spec") or {}).get("holderIdentity") or "", now)
        self._object = found

    def _mine(self, before: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = before.get("spec") or {}
        same = spec.get("holderIdentity") == self._me
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": before.get(
                "metadata",
                {
                    "name": self._name,
                    "namespace": self._namespace,
                    "labels": {names.MANAGED_BY: names.MANAGER},
                },
            ),
            "spec": {
                "holderIdentity": self._me,
                "leaseDurationSeconds": int(DURATION),
                "acquireTime": (spec.get("acquireTime") or now) if same else now,
                "renewTime": now,
                "leaseTransitions": (spec.get("leaseTransitions") or 0) + (0 if same else 1),
            },
        }

    def _path(self) -> str:
        return f"{paths.leases(self._namespace)}/{self._name}"
