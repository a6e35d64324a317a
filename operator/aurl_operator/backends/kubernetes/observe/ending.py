"""How a pod ended: facts for the core, from what kubelet, scheduler and node controller left in its status.

Not here: the cause (core/accounts/causes.py), which is concluded from these facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aurl_operator.api import names
from aurl_operator.backends.kubernetes.observe import init_containers
from aurl_operator.backends.kubernetes.observe.machine import Machine
from aurl_operator.backends.kubernetes.observe.times import seconds
from aurl_operator.core.observed import End
from aurl_trainer.contract import RecordError, Termination

_PREEMPTED = (
    "PreemptionByScheduler",
    "EvictionByEvictionAPI",
    "DeletionByTaintManager",
    "TerminationByKubelet",
)
_NEVER_STARTS = ("StartError", "ContainerCannotRun", "RunContainerError")


def ending(
    pod: Mapping[str, Any],
    machine: Machine | None,
    machine_gone: bool,
    vanished: float | None,
    *,
    ours: bool,
    ran_before: bool,
    now: float,
) -> End | None:
    """How the pod ended, None while it lives. A pod on a lost machine has ended, whatever its object says.

    `ran_before`: nodes of the job have run, a program that cannot be started is its machine's trouble.
    """
    metadata, status = pod["metadata"], pod.get("status", {})
    init = init_containers.failed(status)
    terminated = _terminated(status) if init is None else init["state"]["terminated"]
    disruption = _condition(status, "DisruptionTarget")
    reason = disruption.get("reason", "") if disruption else ""
    machine_lost = machine is not None and machine.lost is not None
    lost = machine_lost or machine_gone or reason == "DeletionByPodGC"
    deleted = metadata.get("deletionTimestamp") is not None or vanished is not None
    if deleted and _ended_before(metadata, terminated):
        # By itself; what was deleted then is what was left of it.
        deleted, reason = False, ""
    announced = machine is not None and machine.notice is not None and not ours
    evicted = status.get("reason") in ("Evicted", "Preempting")
    facts: dict[str, Any] = {
        "disrupted": (reason in _PREEMPTED and not lost) or evicted or announced,
        "deleted": deleted and not ours,
        "message": _message(status, disruption, machine, lost),
    }
    if _own_disk(status):
        return End(at=now, exit_code=1, message=str(status["message"]))
    if terminated is not None:
        return End(
            at=seconds(terminated.get("finishedAt")) or vanished or now,
            **facts
            | {
                "exit_code": terminated.get("exitCode"),
                "termination": _termination(terminated.get("message")) if init is None else None,
                "oom_killed": terminated.get("reason") == "OOMKilled",
                "final": terminated.get("reason") in _NEVER_STARTS and not ran_before,
                # A container's own end came through: its machine was there to tell.
                "node_lost": False,
                "message": facts["message"] or _own_words(terminated, init),
            },
        )
    if vanished is not None:
        return End(at=vanished, node_lost=lost, **facts)
    if machine_lost and machine is not None:
        return End(at=min(machine.lost_at or now, now), node_lost=True, **facts)
    if machine_gone and pod.get("spec", {}).get("nodeName"):
        return End(at=now, node_lost=True, **{**facts, "message": "its machine was removed from the cluster"})
    if status.get("phase") in ("Failed", "Succeeded"):
        code = 0 if status["phase"] == "Succeeded" else None
        return End(at=now, exit_code=code, node_lost=lost, **facts)
    return None


def _ended_before(metadata: Mapping[str, Any], terminated: Mapping[str, Any] | None) -> bool:
    """Whether the container had ended when the deletion of its pod was asked for."""
    finished = seconds((terminated or {}).get("finishedAt"))
    until = seconds(metadata.get("deletionTimestamp"))
    if finished is None or until is None:
        return False
    return finished < until - (metadata.get("deletionGracePeriodSeconds") or 0) - 1.0


def _own_disk(status: Mapping[str, Any]) -> bool:
    """Whether the kubelet evicted it for exceeding its own limit of local storage."""
    words = str(status.get("message") or "").lower()
    return status.get("reason") == "Evicted" and "exceed" in words and "limit" in words


def _terminated(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for container in status.get("containerStatuses") or []:
        if container.get("name") in names.CONTAINERS:
            found: Mapping[str, Any] | None = (container.get("state") or {}).get("terminated")
            return None if found and found.get("reason") == init_containers.UNKNOWN else found
    return None


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    for condition in status.get("conditions") or []:
        if condition["type"] == kind and condition["status"] == "True":
            found: Mapping[str, Any] = condition
            return found
    return None


def _message(
    status: Mapping[str, Any], disruption: Mapping[str, Any] | None, machine: Machine | None, lost: bool
) -> str:
    if lost and machine is not None and machine.lost:
        return machine.lost
    if disruption is not None:
        return str(disruption.get("message") or disruption.get("reason") or "")
    if not status.get("reason"):
        return ""
    # Evicted, or rejected by the kubelet (UnexpectedAdmissionError, OutOfcpu): no condition has the words.
    return ": ".join(str(words) for words in (status["reason"], status.get("message")) if words)


def _own_words(terminated: Mapping[str, Any], init: Mapping[str, Any] | None) -> str:
    if init is not None:
        return init_containers.words(init, terminated)
    if terminated.get("reason") in _NEVER_STARTS:
        return f"cannot be started: {terminated.get('message', '')}"
    return ""


def _termination(text: str | None) -> Termination | None:
    if not text:
        return None
    try:
        return Termination.from_json(text)
    except RecordError:
        return None
