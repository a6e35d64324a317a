"""What every pod of ours has around its program: security, folders, tolerations, small requests.

Pod Security `restricted` accepts it. Not here: the program and its environment (`manifest.py`).
"""

from __future__ import annotations

from typing import Any

RUN_DIR = "/run/aurl"
"""The agent's and the ranks' records."""

TERMINATION_LOG = "/dev/termination-log"

SMALL = {
    "requests": {"cpu": "50m", "memory": "256Mi"},
    "limits": {"cpu": "1", "memory": "1Gi"},
}
"""Of the store and the cleaner; both limits are there, since quotas may ask for them."""

_LOST_SECONDS = 30


def security() -> dict[str, Any]:
    """A container's security context."""
    return {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def pod_security(user: int) -> dict[str, Any]:
    """A pod's security context. Volumes belong to the user's group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def folders() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts that a read-only root leaves to be wanted."""
    volumes = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "run", "emptyDir": {}},
        {"name": "dshm", "emptyDir": {"medium": "Memory"}},
    ]
    mounts = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "run", "mountPath": RUN_DIR},
        {"name": "dshm", "mountPath": "/dev/shm"},
    ]
    return volumes, mounts


def tolerations(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`given` and, unless it speaks of them, how long a pod stays on a machine that is not well."""
    keys = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    own = [
        {
            "key": key,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": _LOST_SECONDS,
        }
        for key in keys
        if not any(
            t.get("key") in (key, None, "") and t.get("effect") in ("NoExecute", None, "") for t in given
        )
    ]
    return [*given, *own]


def sources(given: list[dict[str, Any]], secret: str) -> list[dict[str, Any]]:
    """Where a container's variables come from: `given`, then the job's `secret`."""
    # Where two have the same variable, the last one counts.
    return [*given, {"secretRef": {"name": secret}}]
