"""What a scheduler and a kubelet would do to the pods of one namespace, as far as the operator can see it.

Pods get an address and run; a test ends them as it likes. No machine and no container is involved.
"""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from typing import Any

from tests.integration.apiserver.conftest import kubectl


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

    def __enter__(self) -> Kubelet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def pods(self, role: str | None = None) -> list[dict[str, Any]]:
        """Pods that run, newest attempt last."""
        selector = "app.kubernetes.io/managed-by=aurl" + (f",aurl.dev/role={role}" if role else "")
        done = kubectl("-n", self.namespace, "get", "pods", "-l", selector, "-o", "json")
        items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        return [p for p in items if p["status"].get("phase") == "Running"]

    def patch(self, pod: str, status: dict[str, Any]) -> None:
        body = json.dumps({"status": status})
        argv = ("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", body)
        kubectl("-n", self.namespace, *argv, check=False)

    def end(self, pod: dict[str, Any], code: int) -> None:
        """Its container ends."""
        state = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "finishedAt": now()}
        container = pod["spec"]["containers"][0]
        status = {"name": container["name"], "state": {"terminated": state}, **_FIXED, "image": "x"}
        phase = "Succeeded" if code == 0 else "Failed"
        self.patch(pod["metadata"]["name"], {"phase": phase, "containerStatuses": [status]})

    def vanish(self, pod: dict[str, Any]) -> None:
        """It is gone with all it was."""
        name = pod["metadata"]["name"]
        kubectl("-n", self.namespace, "delete", "pod", name, "--grace-period=0", "--force", check=False)

    def _run(self) -> None:
        while not self._over.is_set():
            done = kubectl("-n", self.namespace, "get", "pods", "-o", "json", check=False)
            for pod in json.loads(done.stdout or '{"items": []}')["items"]:
                uid = pod["metadata"]["uid"]
                if uid in self._seen:
                    continue
                self._seen.add(uid)
                self.names.append(pod["metadata"]["name"])
                self._start(pod)
            time.sleep(0.1)

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
