"""All that the operator says during a session: a replica that dies takes its log along."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from tests.integration.apiserver.client import api_client

NAMESPACE = "aurl-system"
SELECTOR = "app.kubernetes.io/name=aurl-operator"
EVERY_SECONDS = 1.0


class OperatorLog:
    """Follows the log of each container of the operator into a file of its own, while it is entered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._following: dict[str, subprocess.Popen[bytes]] = {}
        self._files = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> OperatorLog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for process in self._following.values():
            process.terminate()
            process.wait(30)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Name and text of each file."""
        for path in sorted(self._folder.iterdir()):
            yield path.name, path.read_text(errors="replace")

    def _run(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            # The API server is away in one scenario.
            with contextlib.suppress(ApiException, HTTPError):
                self._look()

    def _look(self) -> None:
        pods = client.CoreV1Api(api_client()).list_namespaced_pod(
            NAMESPACE, label_selector=SELECTOR, _request_timeout=10
        )
        for pod in pods.items:
            for container in pod.status.container_statuses or []:
                if container.state.running is not None and container.container_id:
                    self._follow(pod.metadata.name, container.container_id)

    def _follow(self, pod: str, container: str) -> None:
        """Begins to, or begins anew where the connection was lost: a second copy does no harm."""
        process = self._following.get(container)
        if process is not None and process.poll() is None:
            return
        self._files += 1
        argv = ["kubectl", "-n", NAMESPACE, "logs", "--follow", pod, "-c", "operator"]
        with (self._folder / f"{pod}-{self._files}.log").open("wb") as file:
            self._following[container] = subprocess.Popen(argv, stdout=file, stderr=subprocess.DEVNULL)
