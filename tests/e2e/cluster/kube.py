"""kubectl, helm and the faults of the test bed, as plain functions. Not here: what is expected (tests)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

SCRIPT = "AURL_CLUSTER_SCRIPT"
REQUIRED = os.environ.get("AURL_CLUSTER_REQUIRED") == "1"
"""Nothing may be skipped."""

PATIENCE = 3.0
"""A machine that has much else to do takes longer. A test that passes never waits to the end."""


def run(*argv: str, stdin: str | None = None, check: bool = True, seconds: float = 180) -> str:
    """What a command prints; its own words if it fails."""
    done = subprocess.run(
        argv, input=stdin, text=True, capture_output=True, timeout=seconds, check=False, env=os.environ
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def kubectl(*argv: str, stdin: str | None = None, check: bool = True) -> str:
    return run("kubectl", *argv, stdin=stdin, check=check)


def get(*argv: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl("get", *argv, "-o", "json"))
    return found


def faults(*argv: str) -> str:
    """The test bed's script: `node kill NAME`, `node start NAME`, `apiserver kill`, ..."""
    if SCRIPT not in os.environ and not REQUIRED:
        pytest.skip(f"set {SCRIPT} to what breaks machines: CONTRIBUTING.md says more")
    return run(os.environ[SCRIPT], *argv, seconds=300)


def evict(namespace: str, pod: str) -> None:
    """As a drain does it."""
    metadata = {"name": pod, "namespace": namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def wait_for(what: str, probe: Callable[[], Any], seconds: float, every: float = 0.5) -> Any:
    """The first true value of `probe`. Fails with its last value otherwise."""
    seconds *= PATIENCE
    end = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < end:
        last = probe()
        if last:
            return last
        time.sleep(every)
    raise AssertionError(f"expected within {seconds:.0f} s: {what}; last seen: {last!r}")
