"""What matters of a machine of the cluster: whether it is there, and whether it is announced to go."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from aurl_operator.backends.kubernetes.observe.times import seconds

NOTICE_TAINTS = (
    "aws-node-termination-handler/spot-itn",
    "aws-node-termination-handler/asg-lifecycle-termination",
    "cloud.google.com/impending-node-termination",
    "karpenter.sh/disrupted",
    "ToBeDeletedByClusterAutoscaler",
)
"""Taints by which clouds and autoscalers announce that a machine will go."""


@dataclass(frozen=True)
class Machine:
    """A machine of the cluster. `lost`: it went silent; `notice`: the taint that announces its end."""

    name: str
    lost: str | None = None
    lost_at: float | None = None
    notice: str | None = None


def machine(node: Mapping[str, Any], notice_taints: Collection[str]) -> Machine:
    """From a Node object."""
    name = str(node["metadata"]["name"])
    lost, at = None, None
    for condition in node.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] != "True":
            lost = f"machine {name} is not ready: {condition.get('message') or condition.get('reason')}"
            at = seconds(condition.get("lastTransitionTime"))
    taints = [taint["key"] for taint in node.get("spec", {}).get("taints", [])]
    notice = next((key for key in taints if key in notice_taints), None)
    return Machine(name, lost, at, None if notice is None else f"machine {name} will go: taint {notice}")
