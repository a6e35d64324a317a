"""The operator as a process of its own, its memory, and its calls as its own metrics tell them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil

WRITES = ("POST", "PUT", "PATCH", "DELETE")
_CALL = re.compile(r'aurl_api_calls_total\{code="(\d+)",resource="([^"]*)",verb="([A-Z]+)"\} ([0-9.e+]+)')


class Operator:
    """Runs `aurl-operator` for one namespace while it is entered."""

    def __init__(self, namespace: str, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._env = {
            **os.environ,
            "AURL_NAMESPACES": namespace,
            "AURL_WATCH_NODES": "yes",
            "AURL_LEASE_NAMESPACE": namespace,
            "AURL_IDENTITY": "bench",
            "AURL_HEALTH_PORT": "0",
            "AURL_METRICS_PORT": str(self._port),
            "AURL_LOG_LEVEL": "WARNING",
        }
        self._log = log
        self.peak = 0
        """Most resident memory seen, in bytes."""

    def __enter__(self) -> Operator:
        with self._log.open("ab") as log:
            argv = [str(Path(sys.executable).parent / "aurl-operator")]
            self._process = subprocess.Popen(argv, env=self._env, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def look(self) -> None:
        """Takes note of the memory it has now. Raises SystemExit if it has ended."""
        if self._process.poll() is not None:
            raise SystemExit(f"the operator has ended: see {self._log}")
        self.peak = max(self.peak, psutil.Process(self._process.pid).memory_info().rss)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def gauge(self, name: str) -> float:
        """A metric without labels."""
        found = re.search(rf"^{name} ([0-9.e+-]+)$", self._metrics(), re.MULTILINE)
        return float(found[1]) if found else float("nan")

    def calls(self) -> dict[tuple[str, str], float]:
        """Calls to the API server so far, by verb and resource; the Lease's own are left out."""
        found: dict[tuple[str, str], float] = {}
        for _code, resource, verb, count in _CALL.findall(self._metrics()):
            if resource != "leases":
                found[verb, resource] = found.get((verb, resource), 0.0) + float(count)
        return found

    def _metrics(self) -> str:
        """Empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def writes(self) -> float:
        """Writes so far."""
        return sum(count for (verb, _), count in self.calls().items() if verb in WRITES)
