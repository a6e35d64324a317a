"""The process around the operator: `aurl-operator`, its logs, /healthz, /readyz and metrics.

Not here: what the operator does (app.py, backends/kubernetes).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.listen.namespaces import Namespaces, divided
from aurl_operator.errors import AurlError, UsageError
from aurl_operator.metrics import REGISTRY
from aurl_operator.settings import Settings

if TYPE_CHECKING:
    from aurl_operator.backends.kubernetes.runtime import Runtime

_FIELDS = ("job", "kind", "incident", "cause")


class JsonLines(logging.Formatter):
    """One JSON object a line, with the job and the incident it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """See base class."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name in _FIELDS if (value := getattr(record, name, None)) is not None},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class Servers:
    """What answers on the health and the metrics port."""

    def __init__(self, runners: list[web.AppRunner]) -> None:
        self._runners = runners

    async def cleanup(self) -> None:
        """Stops answering."""
        for runner in self._runners:
            await runner.cleanup()


async def servers(settings: Settings, runtime: Runtime) -> Servers:
    """Answers /healthz, /readyz and /metrics from now on. Raises UsageError if a port is taken."""

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        trouble = runtime.ready()
        role = "leader" if runtime.working else "standby"
        return web.Response(text=f"{trouble or role}\n", status=503 if trouble else 200)

    async def exposed(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    runners: list[web.AppRunner] = []
    routes = [
        (settings.health_port, {"/healthz": healthz, "/readyz": readyz}),
        (settings.metrics_port, {"/metrics": exposed}),
    ]
    for port, answers in routes:
        if port == 0:
            continue
        app = web.Application()
        for path, handler in answers.items():
            app.router.add_get(path, handler)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            # On all addresses, of IPv4 and of IPv6, as far as the machine has them.
            await web.TCPSite(runner, None, port).start()
        except OSError as error:
            raise UsageError(
                f"port {port}: {os.strerror(error.errno or 0)}; set AURL_HEALTH_PORT or AURL_METRICS_PORT"
            ) from None
        runners.append(runner)
    return Servers(runners)


def set_up_logs(settings: Settings) -> None:
    """Logs to stderr, as JSON lines or as text."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # One line for each event of each object is what kopf would write.
    logging.getLogger("kopf").setLevel(logging.WARNING)


def main() -> None:
    """Run the operator until SIGTERM."""
    set_up_logs(Settings.or_exit())
    import kopf
    import uvloop

    from aurl_operator import app

    settings = app.SETTINGS
    try:
        found = asyncio.run(_namespaces(settings))
    except AurlError as error:
        logging.getLogger(__name__).error("cannot start: %s", error)
        sys.exit(int(error.exit_code))
    memo = kopf.Memo(settings=settings.model_copy(update={"namespaces": found.served}), left=found.left)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        kopf.run(
            loop=runner.get_loop(),
            registry=kopf.get_default_registry(),
            standalone=True,
            clusterwide=not settings.namespaces,
            namespaces=found.served,
            memo=memo,
        )


async def _namespaces(settings: Settings) -> Namespaces:
    if not settings.namespaces:
        return Namespaces()
    async with await Api.connect() as api:
        return await divided(api, settings.namespaces)
