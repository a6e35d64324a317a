"""A pod asked for by its name: lists and watches show only those that carry our label.

A label that somebody took away is given back, so that the watch tells of the pod again. Not here: which pods
the lists make us ask for (relist.py).
"""

from __future__ import annotations

import logging
from typing import Any

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.act.hands import Hands
from aurl_operator.backends.kubernetes.cache import Cache, Entry
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ForbiddenError, NotFoundError
from aurl_operator.backends.kubernetes.observe.process import job_name

log = logging.getLogger(__name__)

Json = dict[str, Any]


class ByName:
    """Asks for pods. For one event loop."""

    def __init__(self, api: Api, cache: Cache, hands: Hands) -> None:
        self._api = api
        self._cache = cache
        self._hands = hands

    async def seen(self, pod: Json) -> Json | None:
        """The pod as it is now, with its label if we may give it back; None: it is gone. Raises ApiError.

        Of `pod`, namespace, name and UID are read.
        """
        metadata = pod["metadata"]
        path = paths.pod(metadata["namespace"], metadata["name"])
        labels = {names.MANAGED_BY: names.MANAGER}
        try:
            now = await self._api.get(path)
            if now["metadata"]["uid"] != metadata["uid"]:
                return None
            if labels.items() <= (now["metadata"].get("labels") or {}).items():
                return now
            version = now["metadata"]["resourceVersion"]
            try:
                return await self._api.merge(
                    path, {"metadata": {"resourceVersion": version, "labels": labels}}
                )
            except ForbiddenError as error:
                await self.denied(now, error)
                return now
        except NotFoundError:
            return None

    async def denied(self, pod: Json, error: ForbiddenError) -> None:
        """Tells of a right that the operator lacks for a pod of a job."""
        metadata = pod["metadata"]
        entry = self._cache.entries.get((metadata["namespace"], job_name(pod) or ""))
        if entry is None:
            log.warning("pod %s left the watch: %s", metadata["name"], error.message)
        else:
            await self._hands.denied(entry, error)

    async def unlisted(self, entry: Entry) -> None:
        """Once, after the start: living pods of a job's memory that no list has shown. Raises ApiError.

        One that only lost its label while no operator looked would count as gone, and train on beside its
        replacement.
        """
        if entry.memory is None or entry.unlisted_asked:
            return
        job = entry.job["metadata"]
        for uid, live in entry.memory.live.items():
            if uid in entry.pods:
                continue
            name = names.pod_name(job["name"], live.name)
            found = await self.seen({"metadata": {"namespace": job["namespace"], "name": name, "uid": uid}})
            if found is not None:
                log.info("pod %s/%s: had lost its label", job["namespace"], name)
                self._cache.put_pod({"kind": "Pod", **found})
        entry.unlisted_asked = True
