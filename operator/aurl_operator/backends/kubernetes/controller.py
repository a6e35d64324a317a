"""One look at one job: observe, reconcile, one status patch, actions, events. Workers do so for all keys.

The patch carries the version of the object that it was decided on: if the job has changed since, or another
operator works on it, nothing is done and the fresh object is looked at. Not here: what is decided (core),
watching (app.py).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from http import HTTPStatus
from typing import Any

from aurl_operator import metrics
from aurl_operator.api import names
from aurl_operator.api.load import parse_object
from aurl_operator.api.status import JobStatus
from aurl_operator.backends.kubernetes.act.difference import difference
from aurl_operator.backends.kubernetes.act.events import told
from aurl_operator.backends.kubernetes.act.hands import Hands
from aurl_operator.backends.kubernetes.act.heard import keeping
from aurl_operator.backends.kubernetes.cache import Cache, Entry
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
)
from aurl_operator.backends.kubernetes.listen.by_name import ByName
from aurl_operator.backends.kubernetes.observe.look import observed, wakes
from aurl_operator.backends.kubernetes.observe.progress import DOUBT_SECONDS
from aurl_operator.backends.kubernetes.unusable import (
    INVALID,
    NEWER,
    Problem,
    condition,
    let_go,
    status_with,
    unexpected,
)
from aurl_operator.core.fitting import fitted
from aurl_operator.core.memory import Memory, MemoryFormatError, NewerMemoryError
from aurl_operator.core.names import rfc3339
from aurl_operator.core.plan import Plan, Release
from aurl_operator.core.reconcile import reconcile
from aurl_operator.launch.pod.check import check
from aurl_operator.launch.pod.manifest import PodDefaults
from aurl_operator.queue import Key, Lane, Queue
from aurl_trainer.errors import ConfigError

log = logging.getLogger(__name__)

NEWS_SECONDS = 30.0
"""A status in which only progress has changed is written so often at most."""

GATHER_SECONDS = 1.0
"""What can wait is written after so long at the latest: a job that starts would else be patched at every
change of its pods, and writes are what a burst of jobs waits for."""

AGAIN_SECONDS = 5.0
"""After trouble with the API server, before the next try."""

TELL_SECONDS = 15.0
"""After Events that could not be written, before the next try."""

UNTOLD_SECONDS = 3000.0
"""What a predecessor may not have told is told so long. The API server keeps Events for an hour: later it
would look untold where it was told."""

UNTOLD_KEPT = 20
"""Ledger entries without their Event that a successor is left to tell, at most."""

FORBIDDEN_SECONDS = 30.0
"""After a refusal that somebody must mend, before the next try."""

FORGIVEN_SECONDS = 2 * DOUBT_SECONDS
"""An unexpected error that has not come again for so long is told no more."""

RESYNC_SECONDS = 600.0
"""Every job is looked at so often, whatever happened or did not."""


class Controller:
    """Looks at jobs."""

    def __init__(self, api: Api, cache: Cache, queue: Queue, hands: Hands, defaults: PodDefaults) -> None:
        self._api = api
        self._cache = cache
        self._queue = queue
        self._hands = hands
        self._defaults = defaults
        self._by_name = ByName(api, cache, hands)

    async def work(self) -> None:
        """Looks at one key after the other, until cancelled."""
        while True:
            key = await self._queue.get()
            try:
                with metrics.RECONCILE.time():
                    after = await self.look(key)
                if after is not None:
                    self._queue.add_at(key, time.monotonic() + after)
            except ConflictError:
                await self._refresh(key)
            except NotFoundError:
                await self._refresh(key)
            except ForbiddenError as error:
                await self._denied(key, error)
            except ApiError as error:
                log.warning("%s/%s: %s", *key, error.message, extra={"job": "/".join(key)})
                self._queue.add_at(key, time.monotonic() + AGAIN_SECONDS)
            except Exception as error:
                log.exception("%s/%s: unexpected error", *key, extra={"job": "/".join(key)})
                await self._stumbled(key, error)
                self._queue.add_at(key, time.monotonic() + AGAIN_SECONDS)
            finally:
                self._queue.done(key)

    async def look(self, key: Key) -> float | None:
        """One look at one job. Returns after how many seconds to look again, whatever happens."""
        entry = self._cache.entries.get(key)
        if entry is None:
            self._queue.forget(key)
            metrics.forget(*key)
            return None
        self._parse(entry)
        if entry.memory is None and (entry.problem is None or entry.problem.kind == NEWER):
            self._remember(entry)
        await self._by_name.unlisted(entry)
        if entry.parsed is None or entry.memory is None or entry.problem is not None:
            await self._unusable(entry)
            return None
        if self._wants_finalizer(entry):
            await self._hands.finalizer(entry, wanted=True)
        now = time.time()
        if entry.trouble is not None and now >= entry.trouble_at + FORGIVEN_SECONDS:
            entry.trouble = None
        plan = reconcile(observed(entry, self._cache, entry.memory, now))
        if (gathering := _gathers(entry, plan, now)) is not None:
            return gathering
        plan = _with_untold(plan, entry)
        await self._persist(entry, plan, now)
        self._report(key, entry, plan)
        # What a predecessor wrote down and may not have told any more, or the API server did not take.
        older = bool(entry.untold)
        entry.untold += [e for e in plan.ledger if told(e)]
        if any(isinstance(action, Release) for action in plan.actions):
            # The last that is heard of the job.
            await self._hands.tell(entry, check=older)
        results = await asyncio.gather(
            *(self._hands.act(entry, action) for action in plan.actions), return_exceptions=True
        )
        # Nothing that is to be done waits for Events.
        all_told = await self._hands.tell(entry, check=older)
        self._cache.forget_ghosts(entry, entry.memory.booked)
        if plan.outcome is not None:
            await self._hands.beside.tidy(entry)
        failed = [result for result in results if isinstance(result, BaseException)]
        if failed:
            raise failed[0]
        if plan.outcome is None and entry.job["metadata"].get("deletionTimestamp") is None:
            await self._hands.beside.restore(entry)
        if any(results):
            # What the actions brought about is seen at once.
            self._queue.add(key)
        times = [at - now for at in wakes(entry, self._cache, now)]
        if not all_told:
            times.append(TELL_SECONDS)
        if plan.wake_after is not None:
            times.append(plan.wake_after)
        if entry.trouble is not None:
            times.append(entry.trouble_at + FORGIVEN_SECONDS - now)
        return min(times, default=None)

    def _parse(self, entry: Entry) -> None:
        generation = entry.job["metadata"].get("generation")
        if entry.parsed_generation == generation and (entry.parsed or entry.problem):
            return
        entry.parsed_generation = generation
        entry.problem = None
        try:
            job = parse_object(entry.job)
            check(job, self._defaults)
            entry.parsed = job
        except ConfigError as error:
            entry.problem = Problem(INVALID, "; ".join(error.problems))
        except Exception as error:
            # Once for each change of the spec: it is not tried again before.
            log.exception("%s: its pods cannot be made", entry.job["metadata"]["name"])
            words = f"no pod can be made of it ({type(error).__name__}); the operator's log has the traceback"
            entry.problem = Problem(INVALID, words)

    def _remember(self, entry: Entry) -> None:
        """Takes over what the object remembers; a problem instead, if only a newer operator can read it."""
        entry.problem = None
        text = (entry.job.get("status") or {}).get("memory")
        if text is None:
            entry.memory = Memory()
            return
        try:
            entry.memory = Memory.from_json(text)
            since = time.time() - UNTOLD_SECONDS
            entry.untold += [e for e in entry.memory.outbox if told(e) and e.at >= since]
        except NewerMemoryError as error:
            entry.problem = Problem(NEWER, str(error))
        except MemoryFormatError as error:
            entry.damaged = str(error)
            log.error("%s: %s; built anew from its pods", entry.job["metadata"]["name"], error)
            entry.memory = Memory()

    def _wants_finalizer(self, entry: Entry) -> bool:
        assert entry.parsed is not None
        deleting = entry.job["metadata"].get("deletionTimestamp") is not None
        wanted = entry.parsed.spec.cleanup.checkpoints != "Keep"
        return (
            wanted and not deleting and names.FINALIZER not in (entry.job["metadata"].get("finalizers") or [])
        )

    async def _persist(self, entry: Entry, plan: Plan, now: float) -> None:
        before = entry.job.get("status") or {}
        # What a newer operator wrote beside what we know stays.
        others = {key: value for key, value in before.items() if key not in _OURS}
        # Only what becomes an Event is written down to be told: the rest of a large job's would fill it.
        outbox = tuple(e for e in plan.memory.outbox if told(e))
        memory, text = fitted(dataclasses.replace(plan.memory, outbox=outbox), entry.pods)
        after = {**others, **_status(entry, plan.status, text)}
        if entry.progress is None and "progress" in before:
            after = keeping(before, after)
        news = now - entry.patched_at >= NEWS_SECONDS
        changed = news and _visible(before) != _visible(after)
        if plan.urgent or changed or _edited(before, after):
            await self._patch(entry, before, after, now)
        entry.memory = memory

    async def _patch(self, entry: Entry, before: dict[str, Any], after: dict[str, Any], now: float) -> None:
        patch = difference(before, after)
        if not patch:
            return
        metadata = entry.job["metadata"]
        body = {"metadata": {"resourceVersion": entry.version}, "status": patch}
        done = await self._api.merge(paths.job(metadata["namespace"], metadata["name"], "status"), body)
        entry.patched_at = now
        self._cache.renew_job(done)

    async def _unusable(self, entry: Entry) -> None:
        """Says why the job cannot be worked. What runs is left alone; if it is deleted, it can go."""
        assert entry.problem is not None
        metadata, now = entry.job["metadata"], time.time()
        if metadata.get("deletionTimestamp") is None:
            status = dict(entry.job.get("status") or {})
            after = status_with(entry.problem, status, metadata.get("generation"), now)
            await self._patch(entry, status, after, now)
        elif names.FINALIZER in (metadata.get("finalizers") or []):
            entry.untold.append(let_go(entry.problem, now))
            await self._hands.tell(entry)
            await self._hands.finalizer(entry, wanted=False)

    async def _refresh(self, key: Key) -> None:
        """The job has changed behind us: take it as it is now, and look again."""
        known = self._cache.entries.get(key)
        try:
            job = await self._api.get(paths.job(*key))
        except NotFoundError:
            if known is not None:
                self._cache.drop_job(known.job)
            return
        except ForbiddenError as error:
            await self._denied(key, error)
            return
        except ApiError as error:
            log.warning("%s/%s: %s", *key, error.message, extra={"job": "/".join(key)})
            self._queue.add_at(key, time.monotonic() + AGAIN_SECONDS)
            return
        if known is not None and self._cache.entries.get(key) is known:
            # Made anew, maybe, and no watch has told: then this is the job, and the old one is gone.
            self._cache.put_job(job)
        self._queue.add(key)

    async def _denied(self, key: Key, error: ForbiddenError) -> None:
        """The operator lacks a right, or its token has run out."""
        entry = self._cache.entries.get(key)
        if entry is not None:
            await self._hands.denied(entry, error)
        after = FORBIDDEN_SECONDS if error.status == HTTPStatus.FORBIDDEN else AGAIN_SECONDS
        self._queue.add_at(key, time.monotonic() + after)

    async def _stumbled(self, key: Key, error: Exception) -> None:
        """A defect of ours, maybe by what the job's nodes say: they are not believed, and the job says so."""
        entry = self._cache.entries.get(key)
        if entry is None:
            return
        now = time.time()
        entry.progress, entry.trouble, entry.trouble_at = None, unexpected(error), now
        status = dict(entry.job.get("status") or {})
        generation = entry.job["metadata"].get("generation")
        try:
            await self._patch(entry, status, status_with(entry.trouble, status, generation, now), now)
        except ApiError as refused:
            log.warning("%s/%s: %s", *key, refused.message, extra={"job": "/".join(key)})

    def _report(self, key: Key, entry: Entry, plan: Plan) -> None:
        for item in plan.ledger:
            extra = {"job": "/".join(key), "kind": item.kind, "incident": item.id, "cause": item.cause}
            log.info("%s %s", item.kind, item.message or item.phase or "", extra=extra)
            if item.kind == "incident" and item.cause is not None:
                metrics.INCIDENTS.labels(item.cause).inc()
            if item.kind == "recovered" and item.recovery_seconds is not None:
                metrics.RECOVERY.labels(item.cause or "").observe(item.recovery_seconds)
        if plan.status.goodput.ratio is not None:
            metrics.GOODPUT.labels(*key).set(plan.status.goodput.ratio)

    def resync(self) -> None:
        """Wants every job looked at."""
        for key in self._cache.entries:
            self._queue.add(key, Lane.NEWS)


def _gathers(entry: Entry, plan: Plan, now: float) -> float | None:
    """For how many seconds more the plan can wait for company; None: it is carried out now."""
    if not plan.can_wait or not plan.urgent:
        entry.waits_since = None
        return None
    entry.waits_since = entry.waits_since or now
    left = entry.waits_since + GATHER_SECONDS - now
    if left > 0:
        return left
    entry.waits_since = None
    return None


def _with_untold(plan: Plan, entry: Entry) -> Plan:
    """The plan, whose memory also holds what has still to be told of earlier ones: for a successor."""
    if not entry.untold:
        return plan
    outbox = (*entry.untold[-UNTOLD_KEPT:], *plan.memory.outbox)
    return dataclasses.replace(plan, memory=dataclasses.replace(plan.memory, outbox=outbox))


def _status(entry: Entry, status: JobStatus, memory: str) -> dict[str, Any]:
    plain = status.to_object()
    plain["memory"] = memory
    plain["selector"] = f"{names.JOB}={entry.job['metadata']['name']},{names.ROLE}=node"
    if entry.damaged is not None:
        plain["conditions"] = [
            *plain.get("conditions", []),
            {
                "type": "MemoryRebuilt",
                "status": "True",
                "reason": "MemoryDamaged",
                "message": entry.damaged[:1024],
                "lastTransitionTime": plain.get("startTime") or rfc3339(time.time()),
            },
        ]
    if entry.trouble is not None:
        before = (entry.job.get("status") or {}).get("conditions", [])
        said = condition(entry.trouble, before, entry.trouble_at)
        plain["conditions"] = [*plain.get("conditions", []), said]
    return plain


_OURS = frozenset(field.alias or name for name, field in JobStatus.model_fields.items())
"""All that we ever write into a status."""


def _visible(status: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key != "memory"}


_MOVING = ("memory", "progress", "goodput", "checkpoint", "incidents")


def _edited(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether somebody else has written into what only changes when we write it."""
    settled = {key: value for key, value in before.items() if key not in _MOVING}
    if settled != {key: value for key, value in after.items() if key not in _MOVING}:
        return True
    return not _is_memory(before.get("memory"))


def _is_memory(text: Any) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (TypeError, ValueError):
        return False
