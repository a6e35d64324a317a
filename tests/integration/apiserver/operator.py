"""The operator as a process of its own, for one namespace or a list of them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path


def free_port() -> int:
    """For the metrics of an operator."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def tracebacks(log: str) -> str:
    """The entries of an operator's log that tell of an unexpected error.

    Not among them: a watch of kopf's that is closed in the middle of an event, which happens at the end only.
    """
    entries = re.split(r"(?m)^(?=\d{4}-\d\d-\d\d )", log)
    return "".join(e for e in entries if "Traceback" in e and not CLOSING.search(e))


CLOSING = re.compile("asyncio: an error occurred during closing of asynchronous generator .* infinite_watch ")


class OperatorProcess:
    """Runs the operator while it is entered; one that was killed is started again at once."""

    def __init__(
        self,
        namespace: str,
        log: Path,
        stop_after: int | None = None,
        metrics_port: int = 0,
        *,
        once: bool = False,
        identity: str = "the-one-under-test",
        kubeconfig: Path | None = None,
        restarts: bool = False,
    ) -> None:
        """`namespace`: its Lease is in the first of a comma list. `stop_after`: it dies right after so many
        writes; with `once` only the first of its lives does. `identity`: another one for each replica.
        `kubeconfig`: who it is, else ourselves. `restarts`: started again however it ends, as a pod's."""
        self._env = {
            **os.environ,
            "AURL_NAMESPACES": namespace,
            "AURL_LEASE_NAMESPACE": namespace.partition(",")[0],
            "AURL_IDENTITY": identity,
            "AURL_HEALTH_PORT": "0",
            "AURL_METRICS_PORT": str(metrics_port),
            "AURL_LOG_FORMAT": "text",
        }
        if stop_after is not None:
            self._env |= {"AURL_TESTING": "1", "AURL_STOP_AFTER_CALLS": str(stop_after)}
        if kubeconfig is not None:
            self._env["KUBECONFIG"] = str(kubeconfig)
        self._metrics_port = metrics_port
        self._once = once
        self._restarts = restarts
        self._log = log
        self.kills = 0
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> OperatorProcess:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(30)

    def leaves(self) -> int | None:
        """SIGTERM, as when its pod is replaced; returns its exit code, None if it does not end."""
        assert self._process is not None
        self._process.terminate()
        self._thread.join(60)
        return self._process.returncode

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def looks(self) -> int:
        """How many looks at jobs it has finished, by its own count; 0 while it does not answer yet."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=5
            ) as answer:
                text = answer.read().decode()
        except OSError:
            return 0
        found = re.search(r"^aurl_reconcile_seconds_count ([0-9.]+)$", text, re.MULTILINE)
        return int(float(found[1])) if found else 0

    def _run(self) -> None:
        argv = [str(Path(sys.executable).parent / "aurl-operator")]
        while not self._over.is_set():
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(argv, env=self._env, stdout=log, stderr=log)
            code = self._process.wait()
            if code == -signal.SIGKILL:
                self.kills += 1
                if self._once:
                    self._env.pop("AURL_STOP_AFTER_CALLS", None)
            elif not self._restarts:
                return
            else:
                self._over.wait(1.0)
