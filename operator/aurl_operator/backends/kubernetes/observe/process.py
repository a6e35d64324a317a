"""From a pod as the API server shows it to a process as the core knows it.

Which process it is stands in labels, and again in an annotation, so that a label removed by hand loses
nothing. Not here: why it waits (waiting.py), how it ended (ending.py), what a cause costs (core).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.observe.ending import ending
from aurl_operator.backends.kubernetes.observe.machine import Machine
from aurl_operator.backends.kubernetes.observe.times import seconds
from aurl_operator.backends.kubernetes.observe.waiting import waiting
from aurl_operator.core.names import process_name
from aurl_operator.core.observed import Notice, Process, Role, State, Waiting

Pod = Mapping[str, Any]


@dataclass(frozen=True)
class Identity:
    """Which process of a job a pod is."""

    role: Role
    index: int
    attempt: int
    round: int


@dataclass(frozen=True)
class Sight:
    """What a pod is looked at with. `vanished`: since when its object is gone. `ours`: we ordered its end."""

    now: float
    machine: Machine | None = None
    machine_gone: bool = False
    ours: bool = False
    vanished: float | None = None
    mount: str = ""
    """Why a volume of it cannot be mounted."""
    ran_before: bool = False
    """Whether any node of the job was ever ready: an image that could be pulled then can be pulled again."""


def job_uid(pod: Pod) -> str | None:
    """UID of the job that owns the pod."""
    for owner in pod["metadata"].get("ownerReferences", []):
        if owner.get("kind") == names.KIND and str(owner.get("apiVersion", "")).startswith(names.GROUP):
            return str(owner["uid"])
    return None


def job_name(pod: Pod) -> str | None:
    """Name of the job that owns the pod."""
    for owner in pod["metadata"].get("ownerReferences", []):
        if owner.get("kind") == names.KIND and str(owner.get("apiVersion", "")).startswith(names.GROUP):
            return str(owner["name"])
    return None


def identity(pod: Pod) -> Identity | None:
    """Which process the pod is; None if it is none of ours."""
    annotations = pod["metadata"].get("annotations") or {}
    labels = pod["metadata"].get("labels") or {}
    try:
        if names.PROCESS in annotations:
            raw = json.loads(annotations[names.PROCESS])
            return Identity(Role(raw["role"]), int(raw["index"]), int(raw["attempt"]), int(raw["round"]))
        return Identity(
            Role(labels[names.ROLE]),
            int(labels[names.INDEX]),
            int(labels[names.ATTEMPT]),
            int(labels[names.ROUND]),
        )
    except (KeyError, ValueError, TypeError):
        return None


def process(pod: Pod, sight: Sight) -> Process | None:
    """The process that this pod is, None if it is none of ours."""
    who = identity(pod)
    if who is None:
        return None
    metadata, status = pod["metadata"], pod.get("status", {})
    end = ending(
        pod,
        sight.machine,
        sight.machine_gone,
        sight.vanished,
        ours=sight.ours,
        ran_before=sight.ran_before,
        now=sight.now,
    )
    container = _container(status)
    running = (container.get("state") or {}).get("running")
    state = State.ENDED if end else State.WAITING if running is None else State.RUNNING
    # Of one that has ended: whether it ever ran.
    silent = who.role is Role.STORE and running is not None and not _is_ready(status)
    ready = _began(container) and not silent
    address = status.get("podIP")
    return Process(
        role=who.role,
        uid=str(metadata["uid"]),
        name=process_name(who.role, who.index, who.attempt),
        index=who.index,
        attempt=who.attempt,
        round=who.round,
        state=state,
        ready=ready,
        since=seconds((running or {}).get("startedAt") or metadata.get("creationTimestamp")),
        waiting=_waiting(pod, sight) if state is State.WAITING else None,
        notice=_notice(pod, sight),
        stopping_since=_deleted_at(metadata),
        address=_endpoint(address) if address and who.role is Role.STORE else None,
        end=end,
        lingers=_lingers(status, container) and sight.vanished is None,
    )


def _waiting(pod: Pod, sight: Sight) -> Waiting:
    return waiting(pod, sight.now, ran_before=sight.ran_before, mount=sight.mount)


def _endpoint(address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{names.STORE_PORT}"


def _container(status: Mapping[str, Any]) -> Mapping[str, Any]:
    statuses = status.get("containerStatuses") or [{}]
    found: Mapping[str, Any] = next((c for c in statuses if c.get("name") in names.CONTAINERS), statuses[0])
    return found


def _began(container: Mapping[str, Any]) -> bool:
    now, last = container.get("state") or {}, container.get("lastState") or {}
    return any(key in now or key in last for key in ("running", "terminated"))


def _lingers(status: Mapping[str, Any], container: Mapping[str, Any]) -> bool:
    """Whether the pod runs on without our container, as one with a container beside it does."""
    return status.get("phase") == "Running" and "terminated" in (container.get("state") or {})


def _is_ready(status: Mapping[str, Any]) -> bool:
    conditions = status.get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _notice(pod: Pod, sight: Sight) -> Notice | None:
    """A deletion that we did not order, or a machine that is announced to go."""
    if sight.ours:
        return None
    deleted_at = _deleted_at(pod["metadata"])
    if deleted_at is not None:
        return Notice(deleted_at, "deleted or evicted", seconds(pod["metadata"]["deletionTimestamp"]))
    if sight.machine is not None and sight.machine.notice is not None:
        return Notice(sight.now, sight.machine.notice)
    return None


def _deleted_at(metadata: Mapping[str, Any]) -> float | None:
    """When its deletion was asked for: its timestamp is when the grace period ends."""
    until = seconds(metadata.get("deletionTimestamp"))
    return None if until is None else until - (metadata.get("deletionGracePeriodSeconds") or 0)
