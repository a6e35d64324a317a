"""Why a pod does not run yet, in one of the core's words and in the cluster's own sentence.

Not here: what is done about it (core/policies/start.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aurl_operator.backends.kubernetes.observe import init_containers
from aurl_operator.backends.kubernetes.observe.times import seconds
from aurl_operator.core.observed import Waiting, WaitingReason

PULL_SECONDS = 45.0
"""A pull that has failed for so long fails a job of which nothing ever ran."""

_NEVER = ("InvalidImageName", "ErrImageNeverPull")
_PULL = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError", *_NEVER)
_CONFIG = ("CreateContainerConfigError",)
_START = ("CreateContainerError", "RunContainerError")


def waiting(pod: Mapping[str, Any], now: float, *, ran_before: bool, mount: str = "") -> Waiting:
    """Why it waits; `Starting` if nothing is wrong. `mount`: why a volume cannot be mounted."""
    status = pod.get("status", {})
    if pod.get("spec", {}).get("schedulingGates"):
        gates = ", ".join(gate["name"] for gate in pod["spec"]["schedulingGates"])
        return Waiting(WaitingReason.GATED, f"held back by {gates}")
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            if condition.get("reason") == "SchedulingGated":
                return Waiting(WaitingReason.GATED, condition.get("message", ""))
            if condition.get("reason") == "Unschedulable":
                return Waiting(_unschedulable(condition.get("message", "")), condition.get("message", ""))
    looping = init_containers.looping(status)
    if looping is not None:
        how = init_containers.words(looping, looping["lastState"]["terminated"])
        return Waiting(WaitingReason.INIT, f"{how}; the kubelet starts it again and again")
    init, own = status.get("initContainerStatuses") or [], status.get("containerStatuses") or []
    for container in [*init, *own]:
        found = (container.get("state") or {}).get("waiting")
        if found is not None and found.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            which = f"init container {container['name']}: " if container in init else ""
            return _container(pod, found, now, which, ran_before=ran_before)
    if mount:
        return Waiting(WaitingReason.VOLUME, mount)
    return Waiting(WaitingReason.STARTING)


def _unschedulable(message: str) -> WaitingReason:
    volume = "persistentvolumeclaim" in message.lower() or "volume" in message.lower()
    return WaitingReason.VOLUME if volume else WaitingReason.UNSCHEDULABLE


def _container(
    pod: Mapping[str, Any], found: Mapping[str, Any], now: float, which: str, *, ran_before: bool
) -> Waiting:
    reason, message = str(found["reason"]), str(found.get("message") or found["reason"])
    if reason in _PULL:
        due = pull_due(pod)
        late = due is not None and now >= due and not ran_before
        return Waiting(WaitingReason.IMAGE, f"{which}{reason}: {message}", final=reason in _NEVER or late)
    if reason in _CONFIG:
        return Waiting(WaitingReason.REFUSED, f"{which}{message}")
    if reason in _START:
        return Waiting(WaitingReason.REFUSED, f"{which}{reason}: {message}", final=not ran_before)
    return Waiting(WaitingReason.STARTING, f"{which}{reason}: {message}")


def scheduled_at(pod: Mapping[str, Any]) -> float | None:
    """Since when it has a machine; since its creation, where the cluster does not say."""
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "True":
            created = pod["metadata"].get("creationTimestamp")
            return seconds(condition.get("lastTransitionTime") or created)
    return None


def pull_due(pod: Mapping[str, Any]) -> float | None:
    """When a failing pull becomes final. Images are pulled as init containers get through."""
    began = scheduled_at(pod)
    through = init_containers.through_at(pod.get("status", {}))
    return None if began is None else max(began, through or began) + PULL_SECONDS
