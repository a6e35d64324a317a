"""TorchX's scheduler `aurl`: an app becomes an AurlTrainingJob, and the operator does the rest.

An app's id is `namespace:name`, since TorchX passes no options to describe, log, list and cancel. Not here:
what an app says as a job (translate.py), reading pods and logs (backends/kubernetes/reading.py).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterable, Iterator
from datetime import datetime
from typing import Any

import yaml
from torchx.schedulers.api import (
    AppDryRunInfo,
    DescribeAppResponse,
    ListAppResponse,
    Scheduler,
    Stream,
)
from torchx.specs import AppDef, AppState, ReplicaStatus, Role, RoleStatus, runopts

from aurl_operator.api import names
from aurl_operator.api.load import parse_job
from aurl_operator.backends.kubernetes import reading
from aurl_operator.backends.kubernetes.client import paths
from aurl_operator.backends.kubernetes.client.api import Api
from aurl_operator.backends.kubernetes.client.errors import ConflictError, ForbiddenError, NotFoundError
from aurl_operator.backends.kubernetes.observe.process import identity
from aurl_operator.backends.kubernetes.pod_log import Wanted
from aurl_operator.core.observed import Role as Process
from aurl_operator.errors import RefusedError
from aurl_operator.torchx.plain import say_plainly
from aurl_operator.torchx.translate import job_object
from aurl_trainer.config.document import Document
from aurl_trainer.contract import NOTICED

BACKEND = "aurl"

STATES = {
    "Pending": AppState.PENDING,
    "Starting": AppState.PENDING,
    "Running": AppState.RUNNING,
    "Recovering": AppState.RUNNING,
    "Suspending": AppState.RUNNING,
    "Suspended": AppState.PENDING,
    "Succeeded": AppState.SUCCEEDED,
    "Failed": AppState.FAILED,
    "Deleting": AppState.CANCELLED,
}


class AurlScheduler(Scheduler[dict[str, Any]]):  # type: ignore[misc]
    """Submits, describes, lists, follows and cancels jobs of the cluster of the kubeconfig."""

    def __init__(self, session_name: str) -> None:
        super().__init__(BACKEND, session_name)

    def _run_opts(self) -> runopts:
        opts = runopts()
        texts = {
            "namespace": "namespace of the job; default: that of the kubeconfig's context",
            "image": "image of the nodes, in place of the app's",
            "checkpoint": "fsspec URL where checkpoints go",
            "secret": "secret whose keys become environment variables of the nodes",
            "priority_class": "priority class of the pods",
            "pods": "pods deleted at the end: None, Running or All",
        }
        for name, text in texts.items():
            opts.add(name, type_=str, help=text, default=None)
        return opts

    def _submit_dryrun(self, app: AppDef, cfg: dict[str, Any]) -> AppDryRunInfo[dict[str, Any]]:
        job = job_object(app, cfg)
        if cfg.get("namespace"):
            job["metadata"]["namespace"] = cfg["namespace"]
        # Checked here, so that a dry run tells what a submission would be refused for.
        parse_job(Document(job, "the job"))
        return AppDryRunInfo(job, lambda request: str(yaml.safe_dump(request, sort_keys=False)))

    def schedule(self, dryrun_info: AppDryRunInfo[dict[str, Any]]) -> str:
        """Creates the job. Raises RefusedError if there is one of its name."""
        job = dryrun_info.request

        async def create(api: Api) -> str:
            where = job["metadata"].get("namespace") or api.namespace
            name = job["metadata"]["name"]
            try:
                await api.create(paths.jobs(where), job)
            except ConflictError:
                raise RefusedError(
                    f"a job {name} is in namespace {where} already; give this one another name"
                ) from None
            except NotFoundError:
                raise RefusedError(f"no namespace {where}, or the operator is not installed") from None
            return f"{where}:{name}"

        return str(_run(create))

    def describe(self, app_id: str) -> DescribeAppResponse | None:
        """The job, None if there is none."""
        where, name = _split(app_id)

        async def look(api: Api) -> DescribeAppResponse | None:
            job = await _found(api, where, name)
            if job is None:
                return None
            pods = await reading.pods(api, where or api.namespace, name)
            return _described(app_id, job, pods)

        return _run(look)

    def list(self) -> list[ListAppResponse]:
        """Jobs of all namespaces, or of the context's where only that may be read."""

        async def look(api: Api) -> list[ListAppResponse]:
            try:
                jobs = await api.list(paths.jobs())
            except ForbiddenError:
                jobs = await api.list(paths.jobs(api.namespace))
            return [
                ListAppResponse(f"{j['metadata']['namespace']}:{j['metadata']['name']}", _state(j))
                for j in jobs
            ]

        found: Any = _run(look)
        return [*found]

    def _cancel_existing(self, app_id: str) -> None:
        where, name = _split(app_id)

        async def cancel(api: Api) -> None:
            job = await _found(api, where, name)
            if job is not None:
                metadata = job["metadata"]
                await api.delete(paths.job(metadata["namespace"], name), uid=metadata["uid"])

        _run(cancel)

    def log_iter(
        self,
        app_id: str,
        role_name: str,
        k: int = 0,
        regex: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        should_tail: bool = False,
        streams: Stream | None = None,
    ) -> Iterable[str]:
        """Lines of node `k`, over all its attempts that can still be read; `until` is not taken."""
        if streams not in (None, Stream.COMBINED):
            raise ValueError("logs of pods are stdout and stderr together")
        where, name = _split(app_id)
        wanted = Wanted(index=k, follow=should_tail, since=since)
        matches = re.compile(regex or "")
        return (line for line in _lines(where, name, wanted) if matches.search(line))


def create_scheduler(session_name: str, **_: object) -> AurlScheduler:
    """For TorchX's entry point."""
    say_plainly()
    return AurlScheduler(session_name)


def _run(work: Any) -> Any:
    async def connected() -> Any:
        async with await Api.connect() as api:
            return await work(api)

    made: Coroutine[Any, Any, Any] = connected()
    return asyncio.run(made)


def _lines(where: str, name: str, wanted: Wanted) -> Iterator[str]:
    """The asynchronous lines one by one, on a loop of this thread's own."""
    loop = asyncio.new_event_loop()
    try:
        api = loop.run_until_complete(Api.connect())
        lines = reading.lines(api, where or api.namespace, name, wanted)
        try:
            while True:
                try:
                    yield loop.run_until_complete(anext(lines)).text + "\n"
                except StopAsyncIteration:
                    return
        finally:
            loop.run_until_complete(lines.aclose())
            loop.run_until_complete(api.close())
    finally:
        loop.close()


def _split(app_id: str) -> tuple[str, str]:
    where, _, name = app_id.rpartition(":")
    return where, name


async def _found(api: Api, where: str, name: str) -> dict[str, Any] | None:
    try:
        return await api.get(paths.job(where or api.namespace, name))
    except NotFoundError:
        return None


def _state(job: dict[str, Any]) -> AppState:
    if job["metadata"].get("deletionTimestamp"):
        return AppState.CANCELLED
    return STATES.get((job.get("status") or {}).get("phase", "Pending"), AppState.UNKNOWN)


def _described(app_id: str, job: dict[str, Any], pods: list[dict[str, Any]]) -> DescribeAppResponse:
    status = job.get("status") or {}
    spec = job["spec"]
    role = Role(
        name=names.TRAINER_CONTAINER,
        image=spec.get("image", ""),
        min_replicas=spec.get("nodes", {}).get("min", 1),
        num_replicas=spec.get("nodes", {}).get("max", 1),
    )
    replicas = [
        ReplicaStatus(
            id=who.index,
            state=_POD_STATES.get(pod["status"].get("phase", ""), AppState.UNKNOWN),
            role=role.name,
            hostname=pod["spec"].get("nodeName") or "",
        )
        for pod in pods
        if (who := identity(pod)) is not None and who.role is Process.NODE
    ]
    return DescribeAppResponse(
        app_id=app_id,
        state=_state(job),
        num_restarts=sum(n for cause, n in (status.get("restarts") or {}).items() if cause not in NOTICED),
        msg=status.get("message", ""),
        roles_statuses=[RoleStatus(role.name, replicas)],
        roles=[role],
    )


_POD_STATES = {
    "Pending": AppState.PENDING,
    "Running": AppState.RUNNING,
    "Succeeded": AppState.SUCCEEDED,
    "Failed": AppState.FAILED,
}
