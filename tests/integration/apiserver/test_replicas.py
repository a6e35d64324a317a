"""Which replica works, where it works, and what a change of replicas costs the jobs: nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.integration.apiserver.conftest import Namespaces, kubectl
from tests.integration.apiserver.kubelet import Kubelet
from tests.integration.apiserver.operator import OperatorProcess, tracebacks
from tests.integration.apiserver.test_crd import manifest
from tests.integration.apiserver.test_operator import NOWHERE, eventually, job, status, whole

JOBS = 60
PODS = 3
"""Of a job of two nodes: the store and both."""


def _submit(namespace: str, first: int, after: int) -> None:
    spec: dict[str, Any] = {"image": "x", "nodes": {"min": 1, "max": 2}, "template": NOWHERE}
    texts = [manifest(namespace, f"job-{n}", **spec) for n in range(first, after)]
    kubectl("create", "-f", "-", stdin="---\n".join(texts))


def _phases(namespace: str) -> Counter[str]:
    items = json.loads(kubectl("-n", namespace, "get", "atj", "-o", "json").stdout)["items"]
    return Counter(
        "whole" if (found.get("nodes") or {}).get("ready") == 2 else str(found.get("phase"))
        for found in (item.get("status", {}) for item in items)
    )


def _leader(namespace: str) -> str:
    shown = kubectl(
        *("-n", namespace, "get", "lease", "aurl-operator", "-o", "jsonpath={.spec.holderIdentity}"),
        check=False,
    )
    return shown.stdout.strip()


def test_a_replica_hands_over_under_load(namespace: str, tmp_path: Path) -> None:
    """The leading one is told to leave while jobs come and pods are made: each job gets its pods, once."""
    with (
        Kubelet(namespace) as kubelet,
        OperatorProcess(namespace, tmp_path / "first", identity="first") as first,
        OperatorProcess(namespace, tmp_path / "second", identity="second") as second,
    ):
        leader = eventually("one of the two leads", lambda: _leader(namespace))
        leading, other = (first, second) if leader == "first" else (second, first)
        _submit(namespace, 0, JOBS // 2)
        eventually("some pods are there", lambda: len(kubelet.names) >= JOBS // 4)
        # However quick it was: these are work that it cannot have done when it is told to leave.
        _submit(namespace, JOBS // 2, JOBS // 4 * 3)
        code = leading.leaves()
        assert code == 0, (
            f"expected a leader that hands over to end with 0, not {code}:\n{leading.log[-2000:]}"
        )
        _submit(namespace, JOBS // 4 * 3, JOBS)
        eventually("the other one leads", lambda: _leader(namespace) not in ("", leader))
        eventually("all jobs are whole", lambda: _phases(namespace) == {"whole": JOBS}, 120)
        for log in (leading.log, other.log):
            assert not tracebacks(log), tracebacks(log)
    twice = [name for name, count in Counter(kubelet.names).items() if count > 1]
    assert not twice, f"expected each pod to be created once, but {twice}"
    assert len(kubelet.names) == JOBS * PODS, f"expected {JOBS * PODS} pods, found {len(kubelet.names)}"


def test_a_list_of_namespaces_is_served_and_no_other(namespaces: Namespaces, tmp_path: Path) -> None:
    one, two, foreign = namespaces(), namespaces(), namespaces()
    with (
        Kubelet(one) as in_one,
        Kubelet(two) as in_two,
        OperatorProcess(f"{one},{two}", tmp_path / "log") as operator,
    ):
        job(foreign)
        for where, kubelet in ((one, in_one), (two, in_two)):
            job(where)
            eventually(f"both nodes run in {where}", whole(kubelet, set()))
        in_two.vanish(in_two.pods("node")[0])
        eventually("what is lost in the second is replaced", lambda: status(two).get("restarts"))
        assert "Traceback" not in operator.log, operator.log[-3000:]
    assert not status(foreign), "expected a job elsewhere to be left alone"
