"""What a scheduler and a kubelet would do to the pods of one namespace, as far as the operator can see it.

Pods get an address and run; a test ends them as it likes. No machine and no container is involved.
"""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from tests.integration.apiserver.client import api_client

MANAGED = "app.kubernetes.io/managed-by=aurl"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Kubelet:
    """Lets pods run, in a thread, while it is entered."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.names: list[str] = []
        """Of every pod that ever was, as often as it was created."""
        self._seen: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._client = api_client()
        self._api = client.CoreV1Api(self._client)

    def __enter__(self) -> Kubelet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def pods(self, role: str | None = None) -> list[dict[str, Any]]:
        """Pods that run, newest attempt last."""
        found = self._list(MANAGED + (f",aurl.dev/role={role}" if role else ""))
        return [p for p in found if p["status"].get("phase") == "Running"]

    def _list(self, selector: str = "") -> list[dict[str, Any]]:
        found = self._api.list_namespaced_pod(self.namespace, label_selector=selector)
        items: list[dict[str, Any]] = self._client.sanitize_for_serialization(found.items)
        return items

    def patch(self, pod: str, status: dict[str, Any]) -> None:
        """Does nothing if it is gone."""
        with contextlib.suppress(ApiException):
            self._api.patch_namespaced_pod_status(pod, self.namespace, {"status": status})

    def end(self, pod: dict[str, Any], code: int) -> None:
        """Its container ends."""
        state = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "finishedAt": now()}
        container = pod["spec"]["containers"][0]
        status = {"name": container["name"], "state": {"terminated": state}, **_FIXED, "image": "x"}
        phase = "Succeeded" if code == 0 else "Failed"
        self.patch(pod["metadata"]["name"], {"phase": phase, "containerStatuses": [status]})

    def vanish(self, pod: dict[str, Any]) -> None:
        """It is gone with all it was."""
        with contextlib.suppress(ApiException):
            self._api.delete_namespaced_pod(pod["metadata"]["name"], self.namespace, grace_period_seconds=0)

    def _run(self) -> None:
        while not self._over.wait(0.1):
            for pod in self._list():
                uid = pod["metadata"]["uid"]
                if uid in self._seen:
                    continue
                self._seen.add(uid)
                self.names.append(pod["metadata"]["name"])
                self._start(pod)

    def _start(self, pod: dict[str, Any]) -> None:
        container = pod["spec"]["containers"][0]
        running = {
            "name": container["name"],
            "state": {"running": {"startedAt": now()}},
            **_FIXED,
            "image": container["image"],
            "ready": True,
        }
        self.patch(
            pod["metadata"]["name"],
            {
                "phase": "Running",
                "podIP": "192.0.2.1",
                "podIPs": [{"ip": "192.0.2.1"}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now()}],
                "containerStatuses": [running],
            },
        )


_FIXED = {"imageID": "", "ready": False, "restartCount": 0}
