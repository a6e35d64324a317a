"""What a job's pods need beside themselves: the agent's files in a ConfigMap, and Volcano's PodGroup.

Somebody may delete them while the job lives, so they are looked after as long as pods are started. Not here:
what is in them (launch/pod), the pods themselves (hands.py).
"""

from __future__ import annotations

import contextlib
import time

from aurl_operator.backends.kubernetes.cache import Entry
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api, Json
from aurl_operator.backends.kubernetes.client.errors import ConflictError, NotFoundError
from aurl_operator.core.observed import Role
from aurl_operator.core.plan import Start
from aurl_operator.launch.pod import agent_mount
from aurl_operator.launch.pod.agent_mount import config_map
from aurl_operator.launch.pod.gang import VOLCANO_API, group

LATELY_SECONDS = 30.0
"""What was there so lately is there: nodes that start together ask for it once. A later one asks again, for
without it a pod would hang."""

NO_VOLCANO = (
    f"Volcano is not installed (this cluster has no PodGroups of {VOLCANO_API}): "
    "install it, or make the job anew without scheduling.gang"
)


class Beside:
    """Makes these objects, makes them again, and removes them."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def prepare(self, entry: Entry, start: Start) -> str | None:
        """Sees to what the pod of `start` needs. Returns why it cannot be had; raises ApiError."""
        assert entry.parsed is not None
        job = entry.parsed
        files = None if _lately(entry.prepared_at) else config_map(job)
        if files is not None and (refused := await self._ensure(entry, files)) is not None:
            return refused
        entry.tidied = False
        gang = group(job) if start.role is Role.NODE else None
        if gang is None or (gang == entry.gang and _lately(entry.gang_at)):
            return None
        namespace = entry.job["metadata"]["namespace"]
        try:
            await self._api.apply(paths.pod_group(namespace, gang["metadata"]["name"]), gang)
        except NotFoundError as error:
            if error.body:
                raise
            # Not a Status but "404 page not found": the API server knows no such kind.
            return NO_VOLCANO
        entry.gang, entry.gang_at = gang, time.monotonic()
        return None

    async def restore(self, entry: Entry) -> None:
        """Makes the ConfigMap again if a pod waits for it: the kubelet then goes on by itself."""
        assert entry.parsed is not None
        if entry.prepared_at is not None or entry.parsed.spec.command is None:
            return
        files = config_map(entry.parsed)
        if files is not None and any(files["metadata"]["name"] in words for words in entry.mounts.values()):
            await self._ensure(entry, files)

    async def _ensure(self, entry: Entry, files: Json) -> str | None:
        """Makes the job's ConfigMap, unless it is there. One that is not the job's may go, or be changed."""
        name = files["metadata"]["name"]
        path = paths.config_maps(entry.job["metadata"]["namespace"])
        found: Json | None = None
        if entry.prepared_at is not None:
            # Most likely it is there still: looking spares a write.
            with contextlib.suppress(NotFoundError):
                found = await self._api.get(f"{path}/{name}")
        if found is None:
            try:
                found = await self._api.create(path, files)
            except ConflictError:
                found = await self._api.get(f"{path}/{name}")
        if not owned(found, entry):
            return f"ConfigMap {name} is there, and is not of this job: delete it"
        entry.prepared_at = time.monotonic()
        return None

    async def tidy(self, entry: Entry) -> None:
        """After the end of a job that leaves nothing: the files go, too."""
        assert entry.parsed is not None
        job = entry.parsed
        if entry.tidied or entry.pods or job.spec.cleanup.pods != "All" or job.spec.command is None:
            return
        namespace = paths.config_maps(entry.job["metadata"]["namespace"])
        for name in sorted({agent_mount.name(job), *entry.agents}):
            with contextlib.suppress(NotFoundError, ConflictError):
                found = await self._api.get(f"{namespace}/{name}")
                if owned(found, entry):
                    await self._api.delete(f"{namespace}/{name}", uid=found["metadata"]["uid"])
        entry.tidied, entry.prepared_at = True, None


def owned(found: Json, entry: Entry) -> bool:
    """Whether an object belongs to this very job."""
    return entry.uid in {owner["uid"] for owner in found["metadata"].get("ownerReferences", [])}


def _lately(at: float | None) -> bool:
    return at is not None and time.monotonic() - at < LATELY_SECONDS
