"""What lets a pod pass Pod Security `restricted`, and where it may write.

User 10001 is the trainer image's own; a foreign image runs as it too, unless the template says otherwise.
"""

from __future__ import annotations

from typing import Any

USER = 10001

POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}

CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

SCRATCH: list[dict[str, Any]] = [
    {"name": "tmp", "emptyDir": {}},
    {"name": "run", "emptyDir": {}},
]
SCRATCH_MOUNTS: list[dict[str, Any]] = [
    {"name": "tmp", "mountPath": "/tmp"},
    {"name": "run", "mountPath": "/run/aurl"},
]
