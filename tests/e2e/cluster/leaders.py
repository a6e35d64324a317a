"""The operator's leading replica: which one it is, and its death by SIGKILL, proven and counted."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.e2e.cluster.kube import PATIENCE, get, kubectl, run

WHERE = ("-n", "aurl-system")
SELECTOR = "app.kubernetes.io/name=aurl-operator"
PAUSES = (3.0, 9.0)
"""Seconds for which a replica has been seen to lead when it is killed: at least, at most."""

UNREACHABLE = 20.0
"""Seconds after which a machine that does not answer is not waited for any more."""

SIGKILLED = 137

KILL = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (process / "cmdline").read_bytes().split(b"\\0")
    except OSError:
        continue  # it has ended
    if int(process.name) != os.getpid() and any(os.path.basename(word) == b"aurl-operator" for word in words):
        print("kills", process.name, flush=True)
        os.kill(int(process.name), signal.SIGKILL)
"""


@contextlib.contextmanager
def killable() -> Iterator[None]:
    """Meanwhile the containers of a replica share its pod's process namespace.

    The kernel keeps a SIGKILL that comes from within from the first process of a namespace, which else is the
    operator.
    """
    _share(True)
    try:
        yield
    finally:
        _share(None)


def _share(wanted: bool | None) -> None:
    patch = {"spec": {"template": {"spec": {"shareProcessNamespace": wanted}}}}
    kubectl(*WHERE, "patch", "deployment", "aurl-operator", "--type=merge", "-p", json.dumps(patch))
    run("kubectl", *WHERE, "rollout", "status", "deployment/aurl-operator", "--timeout=300s", seconds=320)


def leader() -> str:
    """The name of the replica that holds the Lease."""
    lease = get(*WHERE, "lease", "aurl-operator")
    return str(lease["spec"].get("holderIdentity") or "")


def leading_pod() -> dict[str, Any] | None:
    """The pod that the Lease names, if it is there and its container runs."""
    name = leader()
    pods = get(*WHERE, "pods", "-l", SELECTOR)["items"]
    living = (p for p in pods if p["metadata"]["name"] == name and "deletionTimestamp" not in p["metadata"])
    return next((p for p in living if "running" in _container(p).get("state", {})), None)


def _container(pod: dict[str, Any]) -> dict[str, Any]:
    found: list[dict[str, Any]] = pod["status"].get("containerStatuses") or [{}]
    return found[0]


def kill(pod: dict[str, Any]) -> str | None:
    """Sends SIGKILL to the operator in a pod. None if it has died of that, else why not.

    The pod goes, too: a container that has ended often is started again minutes later only.
    """
    name, container = pod["metadata"]["name"], _container(pod)["containerID"]
    argv = ("kubectl", *WHERE, "exec", name, "-c", "operator", "--", "python", "-c", KILL)
    try:
        # Its own exit code says nothing: it may be swept away with the container.
        done = subprocess.run(argv, capture_output=True, text=True, timeout=UNREACHABLE, check=False)
    except subprocess.TimeoutExpired:
        return f"{name} cannot be reached"
    end = time.monotonic() + UNREACHABLE
    while not _ended_by_sigkill(name, container):
        if time.monotonic() > end:
            return f"{name} did not die: {done.stdout}{done.stderr}"
        time.sleep(0.3)
    kubectl(*WHERE, "delete", "pod", name, "--grace-period=0", "--force", "--wait=false", check=False)
    return None


def _ended_by_sigkill(name: str, container: str) -> bool:
    """Whether the kubelet says so of that very container."""
    shown = kubectl(*WHERE, "get", "pod", name, "--ignore-not-found", "-o", "json")
    if not shown:
        return False
    status = _container(json.loads(shown))
    ends = (status.get(when, {}).get("terminated", {}) for when in ("state", "lastState"))
    return any(end.get("containerID") == container and end.get("exitCode") == SIGKILLED for end in ends)


@contextlib.contextmanager
def leaders_are_killed(times: int, seed: int, seconds: float = 300) -> Iterator[None]:
    """Meanwhile whoever leads is killed, so many times within `seconds`; waits for the last of them.

    Fails if fewer have died, and tells what went wrong.
    """
    over = threading.Event()
    victims: set[str] = set()
    failures: list[str] = []
    errors: list[BaseException] = []

    def killing() -> None:
        chance = random.Random(seed)
        end = time.monotonic() + seconds * PATIENCE
        try:
            while len(victims) < times and time.monotonic() < end and not over.is_set():
                pod = leading_pod()
                if pod is None:
                    over.wait(1.0)
                elif not over.wait(chance.uniform(*PAUSES)):
                    if (failure := kill(pod)) is None:
                        victims.add(pod["metadata"]["uid"])
                    else:
                        failures.append(failure)
        except BaseException as error:
            errors.append(error)

    killer = threading.Thread(target=killing)
    killer.start()
    try:
        yield
        killer.join()
    finally:
        over.set()
        killer.join()
        if errors:
            raise errors[0]
    print(f"killed {len(victims)} leaders; not killed: {failures}")
    assert len(victims) == times, f"expected {times} leaders to die, found {len(victims)}; {failures}"
