"""The operator's hands: each action of a plan as a call to the API server, safe to do twice.

Not here: what is wanted (core), what pods need beside themselves (beside.py), and the one patch of the status
(controller.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.act.beside import Beside, owned
from aurl_operator.backends.kubernetes.act.events import denial, event
from aurl_operator.backends.kubernetes.cache import Cache, Entry
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api, Json
from aurl_operator.backends.kubernetes.client.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    UnavailableError,
)
from aurl_operator.backends.kubernetes.observe.process import job_name
from aurl_operator.backends.kubernetes.observe.refusal import refusal
from aurl_operator.core.observed import Refusal, Role, Waiting, WaitingReason
from aurl_operator.core.plan import Action, DeleteJob, Release, Remove, Start, Stop
from aurl_operator.launch.pod.manifest import PodDefaults, pod

log = logging.getLogger(__name__)


class Pace:
    """At most so many starts a second, over all jobs; a second's worth may come at once."""

    def __init__(self, per_second: float) -> None:
        self._every = 1.0 / per_second
        self._next = 0.0

    async def wait(self) -> None:
        """Until it is this caller's turn."""
        now = time.monotonic()
        self._next = max(self._next, now - 1.0) + self._every
        if self._next > now:
            await asyncio.sleep(self._next - now)


class Hands:
    """Acts on pods, jobs and events."""

    def __init__(self, api: Api, cache: Cache, defaults: PodDefaults, pace: Pace) -> None:
        self._api = api
        self._brief = api.brief()
        self.beside = Beside(api)
        self._cache = cache
        self._defaults = defaults
        self._pace = pace

    async def act(self, entry: Entry, action: Action) -> bool:
        """Carries one action out: whether anything was done. Raises ApiError where trying later may help."""
        if isinstance(action, Start):
            await self._start(entry, action)
        elif isinstance(action, Stop):
            grace = 0 if action.kill else int(action.grace_seconds)
            if action.kill:
                _suspect(entry, action.uid)
            return await self._delete_pod(entry, action.uid, grace)
        elif isinstance(action, Remove):
            return await self._delete_pod(entry, action.uid, int(action.grace_seconds))
        elif isinstance(action, DeleteJob):
            await self._delete_job(entry)
        elif isinstance(action, Release):
            # Others may hold the job still: then there is nothing to look at until they let go.
            return await self.finalizer(entry, wanted=False)
        return True

    async def tell(self, entry: Entry, *, check: bool = False) -> bool:
        """Writes what is untold as Events: whether all of it is told. What could not be written stays untold.

        `check`: they may be there already, so look before writing.
        """
        metadata = entry.job["metadata"]
        events = paths.events(metadata["namespace"])
        while entry.untold:
            body = event(entry, entry.untold[0])
            try:
                if not check or not await self._has(f"{events}/{body['metadata']['name']}"):
                    await self._brief.create(events, body)
            except ConflictError:
                pass
            except UnavailableError as error:
                key = f"{metadata['namespace']}/{metadata['name']}"
                log.warning("%s: events wait: %s", key, error.message, extra={"job": key})
                return False
            except ApiError as error:
                log.warning("event %s not written: %s", entry.untold[0].id, error.message)
            del entry.untold[0]
        return True

    async def _has(self, path: str) -> bool:
        try:
            await self._brief.get(path)
        except NotFoundError:
            return False
        except ForbiddenError as error:
            # Writing it twice is one Event all the same.
            log.warning("events cannot be looked up: %s", error.message)
            return False
        return True

    async def denied(self, entry: Entry, error: ForbiddenError) -> None:
        """Tells of a right that is missing: in the log, and once as an Event of the job."""
        metadata = entry.job["metadata"]
        key = f"{metadata['namespace']}/{metadata['name']}"
        log.warning("%s: %s", key, error.message, extra={"job": key})
        if error.right in entry.denied:
            return
        entry.denied.add(error.right)
        with contextlib.suppress(ApiError):
            await self._brief.create(paths.events(metadata["namespace"]), denial(entry, error.right))

    async def finalizer(self, entry: Entry, *, wanted: bool) -> bool:
        """Puts our finalizer on the job, or takes it off: whether that had to be done.

        Raises ConflictError if the job has changed.
        """
        metadata = entry.job["metadata"]
        before = metadata.get("finalizers") or []
        if (names.FINALIZER in before) == wanted:
            return False
        after = [*before, names.FINALIZER] if wanted else [f for f in before if f != names.FINALIZER]
        body: Json = {"metadata": {"resourceVersion": entry.version, "finalizers": after}}
        try:
            done = await self._api.merge(paths.job(metadata["namespace"], metadata["name"]), body)
        except NotFoundError:
            return False
        self._cache.renew_job(done)
        return True

    async def _start(self, entry: Entry, start: Start) -> None:
        assert entry.parsed is not None
        namespace = entry.job["metadata"]["namespace"]
        job = entry.parsed
        slot = (start.role, start.index)
        entry.refusals.pop(slot, None)
        resume = (entry.job["metadata"].get("annotations") or {}).get(names.RESUME)
        body = _elsewhere(pod(job, start, self._defaults), entry)
        await self._pace.wait()
        try:
            refused = await self.beside.prepare(entry, start)
            if refused is not None:
                entry.refusals[slot] = _waits(start, refused, job.metadata.generation, resume)
                return
            made = await self._api.create(paths.pods(namespace), body)
        except ConflictError as error:
            made = await self._api.get(paths.pod(namespace, body["metadata"]["name"]))
            if not owned(made, entry):
                words = (
                    f"{error.message}, of a deleted job of this name: waits until it is gone"
                    if job_name(made) == job.metadata.name
                    else f"{error.message}, and is not of this job: delete it or rename the job"
                )
                entry.refusals[slot] = _waits(start, words, job.metadata.generation, resume)
                return
        except ApiError as error:
            if isinstance(error, UnavailableError) and await self._made(entry, namespace, body):
                return
            key = f"{namespace}/{job.metadata.name}"
            log.warning("%s: %s refused: %s", key, start.name, error.message, extra={"job": key})
            if start.role is Role.CLEANER and isinstance(error, UnavailableError):
                # A refused cleaner is the last one; one that could not be started is one try of several.
                return
            entry.refusals[slot] = refusal(start, error, time.time(), job.metadata.generation, resume)
            return
        self._cache.put_pod(made)

    async def _made(self, entry: Entry, namespace: str, body: Json) -> bool:
        """Whether a pod is there although its creation was answered by a failure, or not at all."""
        try:
            found = await self._brief.get(paths.pod(namespace, body["metadata"]["name"]))
        except ApiError:
            # If it is there after all, it is seen, or found by its name when it is tried again.
            return False
        if not owned(found, entry):
            return False
        self._cache.put_pod(found)
        return True

    async def _delete_job(self, entry: Entry) -> None:
        """What came of it is known at once: no look asks for it again until the watch has told."""
        metadata = entry.job["metadata"]
        try:
            done = await self._api.delete(paths.job(metadata["namespace"], metadata["name"]), uid=entry.uid)
        except (NotFoundError, ConflictError):
            self._cache.drop_job(entry.job)
            return
        if (done.get("metadata") or {}).get("deletionTimestamp"):
            # Somebody holds it.
            self._cache.renew_job(done)
        else:
            self._cache.drop_job(entry.job)

    async def _delete_pod(self, entry: Entry, uid: str, grace: int) -> bool:
        """Whether anything has changed by it."""
        known = entry.pods.get(uid)
        if known is None or uid in entry.vanished:
            return False
        metadata = known["metadata"]
        try:
            done = await self._api.delete(
                paths.pod(metadata["namespace"], metadata["name"]), uid=uid, grace=grace
            )
        except (NotFoundError, ConflictError):
            # Gone, or its name is another pod's by now.
            self._cache.drop_pod(known, time.time())
            return True
        if done.get("kind") != "Pod":
            self._cache.drop_pod(known, time.time())
            return True
        changed = self._cache.put_pod(done) is not None
        if grace == 0 and not done["metadata"].get("finalizers"):
            self._cache.drop_pod(done, time.time())
            return True
        return changed


def _waits(start: Start, words: str, generation: int | None, resume: str | None) -> Refusal:
    """The refusal of `start` until somebody mends what `words` say: it is tried again."""
    waiting = Waiting(WaitingReason.REFUSED, words)
    return Refusal(start.role, start.index, start.attempt, waiting, time.time(), generation, resume)


SUSPECT_SECONDS = 120.0
"""How long a machine that fell silent is avoided: by then the cluster knows whether it lives."""


def _suspect(entry: Entry, uid: str) -> None:
    place = entry.pods.get(uid, {}).get("spec", {}).get("nodeName")
    if place:
        entry.suspects[place] = time.time()


def _elsewhere(body: Json, entry: Entry) -> Json:
    """The pod, put rather on another machine than on one that has just fallen silent."""
    suspects = sorted(name for name, at in entry.suspects.items() if time.time() - at < SUSPECT_SECONDS)
    if not suspects:
        return body
    terms = [
        {
            "weight": 100,
            "preference": {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [name]}]},
        }
        for name in suspects
    ]
    affinity = dict(body["spec"].get("affinity") or {})
    node = dict(affinity.get("nodeAffinity") or {})
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    node[preferred] = [*node.get(preferred, []), *terms]
    spec = {**body["spec"], "affinity": {**affinity, "nodeAffinity": node}}
    # A machine that has fallen silent is the emptiest of all: a wish to spread must not lead there.
    spread = [c for c in spec.get("topologySpreadConstraints") or [] if c.get("whenUnsatisfiable") != _SOFT]
    return {**body, "spec": {**spec, "topologySpreadConstraints": spread}}


_SOFT = "ScheduleAnyway"
