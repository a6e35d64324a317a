"""kopf's handlers and nothing else: an event arrives, the cache learns it, the job's name goes on the queue.

    kopf run -m aurl_operator.app        or        aurl-operator

At the start the Lease is taken, then everything is listed, then work begins; a start that fails, losing the
Lease, and an error that ends a part of the work, end the process at once: another replica takes over. Not
here: any decision, any call to the API server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from typing import Any, NoReturn

import kopf

from aurl_operator import metrics
from aurl_operator.api import names
from aurl_operator.backends.kubernetes.client.api import PAGE, Api
from aurl_operator.backends.kubernetes.lease import Lease
from aurl_operator.backends.kubernetes.listen.hearing import JOBS, PODS
from aurl_operator.backends.kubernetes.runtime import Runtime
from aurl_operator.errors import AurlError
from aurl_operator.nothing_kept import NoDiffBase, NoProgress
from aurl_operator.queue import Key
from aurl_operator.service import servers
from aurl_operator.settings import Settings

log = logging.getLogger(__name__)

SETTINGS = Settings.or_exit()
GONE = "DELETED"

IDLE_SECONDS = 0.2
"""How long kopf keeps the last event of each object, and a task for it, after it was handled: at a start that
is all objects at once. Not 0: kopf's own wait would then find no event ever."""


@kopf.on.startup(errors=kopf.ErrorsMode.PERMANENT)
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Take the Lease, list everything, begin to work."""
    _plain(settings)
    try:
        await _begin(memo)
    except asyncio.CancelledError:
        # Told to end while it lists: kopf then calls no clean-up.
        await _hand_over(memo)
        raise
    except AurlError as error:
        # A second try in this process would find ports and Lease taken by the first.
        log.error("cannot start: %s", error)
        await _hand_over(memo)
        _end(int(error.exit_code))


def _plain(settings: kopf.OperatorSettings) -> None:
    """kopf as a mere watcher."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    settings.watching.server_timeout = 300
    settings.watching.chunk_size = PAGE
    settings.queueing.idle_timeout = IDLE_SECONDS
    settings.watching.label_selectors["pods"] = names.SELECTOR
    for noisy in ("kopf.objects", "kopf.activities", "kopf._core", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


async def _begin(memo: kopf.Memo) -> None:
    # Under `kopf run` nobody has asked which namespaces can be served.
    settings: Settings = memo.get("settings", SETTINGS)
    memo.api = api = await Api.connect(counted=metrics.counted, stop_after=settings.stop_after_calls)
    memo.runtime = runtime = Runtime(
        api,
        settings,
        memo.get("left", ()),
        anew=lambda: os.kill(os.getpid(), signal.SIGTERM),
        broken=lambda: _end(1),
    )
    memo.servers = await servers(settings, runtime)
    namespace = settings.lease_namespace or os.environ.get("POD_NAMESPACE") or api.namespace
    # Apart: a renewal must not stand in line behind a thousand deletions.
    memo.lease_api = api.apart()
    memo.lease = Lease(memo.lease_api, namespace, settings.lease_name, settings.identity)
    await memo.lease.acquire()
    metrics.LEADER.set(1)
    memo.holding = asyncio.create_task(_hold(memo.lease))
    await runtime.start()


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """End all work, then hand the Lease over."""
    if "holding" in memo:
        await memo.runtime.stop()
        await _hand_over(memo)
        metrics.LEADER.set(0)
    if "servers" in memo:
        await memo.servers.cleanup()
    if "api" in memo:
        await memo.api.close()


async def _hand_over(memo: kopf.Memo) -> None:
    """Another replica need not wait until the Lease runs out."""
    if "holding" in memo:
        memo.holding.cancel()
    if "lease" in memo:
        await memo.lease.release()
        await memo.lease_api.close()


@kopf.on.event(names.GROUP, names.VERSION, names.PLURAL)
async def job(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
    """A job was created, changed or deleted."""
    runtime: Runtime = memo.runtime
    runtime.hearing.heard(JOBS)
    body = dict(event["object"])
    if event["type"] == GONE:
        runtime.queue.add(runtime.cache.drop_job(body))
        return
    key, news = runtime.cache.put_job(body)
    if news:
        runtime.queue.add(key)


@kopf.on.event("", "v1", "pods")
async def pod(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
    """A pod of ours was created, changed or deleted."""
    runtime: Runtime = memo.runtime
    runtime.hearing.heard(PODS)
    body = {"kind": "Pod", **event["object"]}
    cache = runtime.cache
    gone = event["type"] == GONE and await runtime.relist.really_gone(body)
    if event["type"] == GONE and not gone:
        return
    key: Key | None = cache.drop_pod(body, time.time()) if gone else cache.put_pod(body)
    if key is not None:
        runtime.queue.add(key)


async def machine(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
    """A machine came, changed or went."""
    runtime: Runtime = memo.runtime
    body = dict(event["object"])
    gone = event["type"] == GONE
    for key in runtime.cache.drop_machine(body) if gone else runtime.cache.put_machine(body):
        runtime.queue.add(key)


if SETTINGS.machines:
    kopf.on.event("", "v1", "nodes")(machine)


async def _hold(lease: Lease) -> None:
    """Two operators at work never settle: without the Lease this process ends before another begins."""
    try:
        await lease.hold()
    except Exception:
        log.exception("the Lease cannot be renewed: work stops")
    _end(1)


def _end(code: int) -> NoReturn:
    """Ends the process, whatever else in it is under way."""
    logging.shutdown()
    os._exit(code)
