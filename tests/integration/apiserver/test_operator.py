"""The operator on a real API server, with pods that are played: a life with losses, and what people do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from aurl_operator.api import names
from aurl_operator.core.policies.recovery import WINDOW
from aurl_trainer.contract import ExitCode
from tests.integration.apiserver.conftest import Namespaces, kubectl
from tests.integration.apiserver.kubelet import Kubelet, now
from tests.integration.apiserver.operator import OperatorProcess, free_port
from tests.integration.apiserver.test_crd import get, manifest

NOWHERE = {"spec": {"schedulerName": "nobody"}}
"""Pods that no real machine takes."""

APART = WINDOW + 1.0
"""Seconds between losses that are not one incident."""

ONE = {"min": 1, "max": 1}

AT_ONCE = 4
"""Lives of jobs at once, where there are many."""


def eventually(what: str, probe: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < end:
        last = probe()
        if last:
            return last
        time.sleep(0.2)
    raise AssertionError(f"expected within {seconds:.0f} s: {what}; last seen: {last!r}")


def job(namespace: str, name: str = "bach", **spec: Any) -> None:
    wanted = {"image": "x", "nodes": {"min": 1, "max": 2}, "template": NOWHERE, **spec}
    kubectl("apply", "-f", "-", stdin=manifest(namespace, name, **wanted))


def status(namespace: str, name: str = "bach") -> dict[str, Any]:
    return dict(get(namespace, name).get("status", {}))


def condition(namespace: str, kind: str) -> dict[str, Any]:
    found = [c for c in status(namespace).get("conditions", []) if c["type"] == kind]
    return dict(found[0]) if found else {}


def whole(kubelet: Kubelet, but: set[str], losses: int = 0) -> Callable[[], list[dict[str, Any]] | None]:
    """Two nodes that run, none of them among `but`, as the operator sees it too, after so many losses."""

    def probe() -> list[dict[str, Any]] | None:
        nodes = [p for p in kubelet.pods("node") if p["metadata"]["uid"] not in but]
        found = status(kubelet.namespace)
        ready = (found.get("nodes") or {}).get("ready")
        booked = sum((found.get("restarts") or {}).values())
        return nodes if len(nodes) == 2 and ready == 2 and booked == losses else None

    return probe


def lived(namespace: str, kubelet: Kubelet, seconds: float) -> dict[str, Any]:
    """A life with three losses: a node is evicted, the store vanishes, a node vanishes; then it succeeds."""
    job(namespace)
    nodes = eventually("both nodes run", whole(kubelet, set()), seconds)
    target = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "evicted",
        "lastTransitionTime": now(),
    }
    kubelet.patch(nodes[1]["metadata"]["name"], {"conditions": [target]})
    kubelet.vanish(nodes[1])
    gone = {nodes[1]["metadata"]["uid"]}
    nodes = eventually("the evicted one is replaced", whole(kubelet, gone, 1), seconds)
    gone |= {node["metadata"]["uid"] for node in nodes}
    time.sleep(APART)
    kubelet.vanish(kubelet.pods("store")[0])
    nodes = eventually("all are new after the store was lost", whole(kubelet, gone, 2), seconds)
    time.sleep(APART)
    kubelet.vanish(nodes[0])
    gone.add(nodes[0]["metadata"]["uid"])
    nodes = eventually("the one that vanished is replaced", whole(kubelet, gone, 3), seconds)
    for node in nodes:
        kubelet.end(node, 0)
    eventually("it has succeeded", lambda: status(namespace).get("phase") == "Succeeded", seconds)
    return status(namespace)


def booked_once(namespace: str, kubelet: Kubelet, found: dict[str, Any]) -> None:
    assert sum(found["restarts"].values()) == 3, f"expected three losses, found {found['incidents']}"
    twice = [name for name, count in Counter(kubelet.names).items() if count > 1]
    assert not twice, f"expected each pod to be created once, but {twice}"
    events = json.loads(kubectl("-n", namespace, "get", "events", "-o", "json").stdout)["items"]
    warnings = [
        e for e in events if e["involvedObject"]["kind"] == "AurlTrainingJob" and e["type"] == "Warning"
    ]
    assert len(warnings) == 3, f"expected three events, found {[e['message'] for e in warnings]}"


def test_a_life_with_three_losses(namespace: str, tmp_path: Path) -> None:
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log") as operator:
        found = lived(namespace, kubelet, 30)
        assert "Traceback" not in operator.log, operator.log[-3000:]
    assert found["restarts"] == {"preempted": 1, "deleted": 2}, found["restarts"]
    booked_once(namespace, kubelet, found)


def test_each_loss_is_booked_once_however_often_the_operator_dies(namespace: str, tmp_path: Path) -> None:
    """SIGKILL when every fourth write is done and its answer not yet known, all its life long."""
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log", 4) as operator:
        found = lived(namespace, kubelet, 240)
    assert operator.kills > 5, f"expected it to be killed again and again, but it was {operator.kills} times"
    print(f"killed {operator.kills} times")
    booked_once(namespace, kubelet, found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_each_loss_is_booked_once_whenever_the_operator_dies(namespaces: Namespaces, tmp_path: Path) -> None:
    """One life for every n: SIGKILL when the n-th write is done and its answer not yet known."""

    def life(n: int) -> int:
        where = namespaces()
        with Kubelet(where) as kubelet, OperatorProcess(where, tmp_path / str(n), n, once=True) as operator:
            found = lived(where, kubelet, 240)
        try:
            booked_once(where, kubelet, found)
        except AssertionError as error:
            raise AssertionError(f"killed after write {n}: {error}") from error
        return operator.kills

    killed, n = 0, 1
    with ThreadPoolExecutor(AT_ONCE) as lives:
        # The last lives are those that have no n-th write any more.
        while all(kills := list(lives.map(life, range(n, n + AT_ONCE)))):
            killed, n = killed + len(kills), n + AT_ONCE
    killed += sum(kills)
    print(f"{killed} lives, killed after each write")
    assert killed >= 20, f"expected a life to have more writes than {killed}"


def test_a_job_that_is_wrong_says_so_and_goes_on_when_it_is_mended(namespace: str, tmp_path: Path) -> None:
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log"):
        job(namespace, template={"spec": {"restartPolicy": "Always"}})
        words = eventually("a condition", lambda: condition(namespace, "InvalidSpec"))["message"]
        assert "restartPolicy" in words
        assert not kubelet.names
        job(namespace, nodes={"min": 1, "max": 2})
        eventually("both nodes run", whole(kubelet, set()))
        assert not condition(namespace, "InvalidSpec")


def test_a_status_that_is_edited_by_hand_is_written_over(namespace: str, tmp_path: Path) -> None:
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log"):
        job(namespace)
        eventually("both nodes run", whole(kubelet, set()))
        lie = json.dumps({"status": {"phase": "Failed", "memory": "not JSON", "nodes": {"ready": 7}}})
        kubectl("-n", namespace, "patch", "atj", "bach", "--subresource=status", "--type=merge", "-p", lie)
        eventually("the truth again", lambda: status(namespace)["phase"] == "Running")
        eventually("both nodes run", whole(kubelet, set()))
        assert len(kubelet.names) == 3, f"expected store and two nodes, found {kubelet.names}"


def test_a_memory_that_was_damaged_is_built_from_the_pods(namespace: str, tmp_path: Path) -> None:
    with Kubelet(namespace) as kubelet:
        with OperatorProcess(namespace, tmp_path / "log"):
            job(namespace)
            eventually("both nodes run", whole(kubelet, set()))
        damage = json.dumps({"status": {"memory": "{"}})
        kubectl("-n", namespace, "patch", "atj", "bach", "--subresource=status", "--type=merge", "-p", damage)
        with OperatorProcess(namespace, tmp_path / "log2"):
            eventually("it says so", lambda: condition(namespace, "MemoryRebuilt"))
            eventually("it goes on", lambda: status(namespace)["phase"] == "Running")
        assert "memory" in status(namespace)


def test_a_restart_writes_nothing_when_nothing_has_changed(namespace: str, tmp_path: Path) -> None:
    with Kubelet(namespace) as kubelet:
        with OperatorProcess(namespace, tmp_path / "log"):
            job(namespace)
            eventually("both nodes run", whole(kubelet, set()))
            time.sleep(6)
        before = get(namespace)["metadata"]["resourceVersion"]
        with OperatorProcess(namespace, tmp_path / "log2", metrics_port=free_port()) as restarted:
            eventually("the restarted one has listed the job", lambda: "1 jobs listed" in restarted.log)
            eventually("it has looked at the job", restarted.looks)
            # What it would write or make after its first look is there within a second (GATHER_SECONDS).
            time.sleep(5)
            assert get(namespace)["metadata"]["resourceVersion"] == before, "expected no write"
            assert len(kubelet.names) == 3, f"expected no new pod, found {kubelet.names}"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [({"scheduling": {"priorityClass": "nobody-made-it"}}, "Refused")],
)
def test_a_refused_pod_is_a_named_wait(
    namespace: str, tmp_path: Path, spec: dict[str, Any], reason: str
) -> None:
    with OperatorProcess(namespace, tmp_path / "log"):
        job(namespace, nodes=ONE, **spec)
        found = eventually(
            "a reason", lambda: (c := condition(namespace, "Waiting")).get("reason") == reason and c
        )
        assert "nobody-made-it" in found["message"]


def test_a_quota_is_a_named_wait(namespace: str, tmp_path: Path) -> None:
    kubectl("-n", namespace, "create", "quota", "none", "--hard=pods=0")
    # Where no controller counts what is used, nothing would be refused.
    counted = json.dumps({"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}})
    kubectl("-n", namespace, "patch", "quota", "none", "--subresource=status", "--type=merge", "-p", counted)
    with OperatorProcess(namespace, tmp_path / "log"):
        job(namespace, nodes=ONE)
        eventually("a reason", lambda: condition(namespace, "Waiting").get("reason") == "Quota")


@pytest.mark.parametrize("label", ["aurl.dev/role", "app.kubernetes.io/managed-by"])
def test_a_label_that_is_removed_from_a_pod_loses_nothing(namespace: str, tmp_path: Path, label: str) -> None:
    with (
        Kubelet(namespace) as kubelet,
        OperatorProcess(namespace, tmp_path / "log", metrics_port=free_port()) as operator,
    ):
        job(namespace)
        nodes = eventually("both nodes run", whole(kubelet, set()))
        time.sleep(3)  # until it has no reason of its own to look
        looks = operator.looks()
        pod = nodes[0]["metadata"]["name"]
        kubectl("-n", namespace, "label", "pod", pod, label + "-")
        eventually("it has seen that", lambda: operator.looks() > looks)
        if label == "app.kubernetes.io/managed-by":
            shown = ("-n", namespace, "get", "pod", pod, "-o", "jsonpath={.metadata.labels}")
            eventually("the label is back", lambda: label in kubectl(*shown).stdout)
        time.sleep(3)
        assert status(namespace)["nodes"]["ready"] == 2
        assert len(kubelet.names) == 3, f"expected no new pod, found {kubelet.names}"
        assert not status(namespace).get("incidents")


def test_a_label_that_is_removed_while_no_operator_runs_loses_nothing(namespace: str, tmp_path: Path) -> None:
    with Kubelet(namespace) as kubelet:
        with OperatorProcess(namespace, tmp_path / "first"):
            job(namespace)
            nodes = eventually("both nodes run", whole(kubelet, set()))
            eventually(
                "both are remembered", lambda: (status(namespace).get("nodes") or {}).get("ready") == 2
            )
        pod = nodes[0]["metadata"]["name"]
        kubectl("-n", namespace, "label", "pod", pod, names.MANAGED_BY + "-")
        with OperatorProcess(namespace, tmp_path / "second"):
            shown = ("-n", namespace, "get", "pod", pod, "-o", "jsonpath={.metadata.labels}")
            eventually("the label is back", lambda: names.MANAGED_BY in kubectl(*shown).stdout)
            time.sleep(2)
    assert len(kubelet.names) == 3, f"expected no new pod, found {kubelet.names}"
    assert not status(namespace).get("incidents")


@pytest.mark.parametrize("nodes", [1, 2])
def test_pods_pass_pod_security_restricted(namespace: str, tmp_path: Path, nodes: int) -> None:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log"):
        job(namespace, nodes={"min": nodes, "max": nodes})
        eventually("nodes run", lambda: len(kubelet.pods("node")) == nodes)


def test_a_failed_job_is_resumed_under_its_name(namespace: str, tmp_path: Path) -> None:
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log"):
        job(namespace, nodes=ONE)
        nodes = eventually("a node runs", lambda: kubelet.pods("node"))
        kubelet.end(nodes[0], int(ExitCode.FINAL))
        eventually("it has failed", lambda: status(namespace).get("phase") == "Failed")
        refused = aurl("resume", "nobody", "-n", namespace)
        assert refused.returncode == ExitCode.MISSING, refused.stderr
        done = aurl("resume", "bach", "-n", namespace)
        assert done.returncode == 0, done.stderr
        eventually("a new node runs", lambda: kubelet.pods("node"))
        eventually("it runs", lambda: status(namespace).get("phase") == "Running")
        again = aurl("resume", "bach", "-n", namespace)
        assert again.returncode == ExitCode.REFUSED, "expected a running job not to be resumed"


@pytest.mark.parametrize("order", ["mended, then resumed", "resumed, then mended"])
def test_a_job_whose_pod_was_refused_goes_on_when_it_is_mended(
    namespace: str, tmp_path: Path, order: str
) -> None:
    wrong = [{"key": "spot", "operator": "Exists", "value": "true"}]
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log"):
        job(namespace, nodes=ONE, template={"spec": {**NOWHERE["spec"], "tolerations": wrong}})
        eventually("it has failed", lambda: status(namespace).get("phase") == "Failed")
        assert "tolerations" in status(namespace)["message"]
        if order == "resumed, then mended":
            first = status(namespace)["completionTime"]
            time.sleep(1.1)  # times of a status are whole seconds
            early = aurl("resume", "bach", "-n", namespace)
            assert early.returncode == 0, early.stderr
            eventually(
                "it failed again", lambda: status(namespace).get("completionTime") not in (None, first)
            )
            assert status(namespace)["phase"] == "Failed"
        job(namespace, nodes=ONE)
        done = aurl("resume", "bach", "-n", namespace)
        assert done.returncode == 0, done.stderr
        eventually("a node runs", lambda: kubelet.pods("node"))
        eventually("it runs", lambda: status(namespace).get("phase") == "Running")


def test_a_job_of_the_longest_name_runs(namespace: str, tmp_path: Path) -> None:
    name = "b" * 63
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log"):
        job(namespace, name)
        eventually("both nodes start", lambda: f"{name}-worker-1-0" in kubelet.names)
        eventually("it runs", lambda: status(namespace, name).get("phase") == "Running")


def test_a_job_made_anew_under_its_name_has_a_story_of_its_own(namespace: str, tmp_path: Path) -> None:
    """The pods of the deleted one save and leave meanwhile, under the names that the new one wants first."""
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log"):
        job(namespace)
        old = eventually("both nodes run", whole(kubelet, set()))
        old += kubelet.pods("store")
        kubectl("-n", namespace, "delete", "atj", "bach")
        job(namespace)
        # As the garbage collector does it, which does not run here.
        for pod in old:
            kubelet.vanish(pod)
        gone = {pod["metadata"]["uid"] for pod in old}
        eventually("both nodes of the new one run", whole(kubelet, gone))
        found = status(namespace)
        assert not found.get("incidents"), f"expected no loss of the new job, found {found['incidents']}"


def test_in_a_namespace_that_ends_the_finalizer_lets_go(namespace: str, tmp_path: Path) -> None:
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log"):
        job(namespace, nodes=ONE, cleanup={"checkpoints": "Delete"})
        eventually("a node runs", lambda: status(namespace).get("phase") == "Running")
        kubectl("delete", "namespace", namespace, "--wait=false")
        kubectl("-n", namespace, "delete", "atj", "bach", "--wait=false")
        for pod in kubelet.pods():
            kubelet.vanish(pod)
        names = ("-n", namespace, "get", "atj", "-o", "name")
        eventually("the job is gone", lambda: not kubectl(*names).stdout.strip(), 30)


def aurl(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / "aurl")
    return subprocess.run(
        [program, *argv], text=True, capture_output=True, timeout=60, check=False, env={**os.environ, **env}
    )
