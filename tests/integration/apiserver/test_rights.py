"""An operator that lacks a right says which one, where people look, and works on wherever it has it."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from aurl_operator.backends.kubernetes.listen.namespaces import AGAIN_SECONDS
from tests.integration.apiserver.conftest import ROOT, Namespaces, kubectl
from tests.integration.apiserver.kubelet import Kubelet
from tests.integration.apiserver.operator import OperatorProcess
from tests.integration.apiserver.test_crd import manifest
from tests.integration.apiserver.test_operator import (
    AT_ONCE,
    NOWHERE,
    ONE,
    eventually,
    job,
    status,
    whole,
)

RULES = yaml.safe_load((ROOT / "charts/files/rules.yaml").read_text())
NAME = "narrow"

Right = tuple[str, str]
"""Resource and verb."""

UNSEEN = {
    # Asked after a conflict, after a restart, and for a volume that cannot be mounted: tests/unit/operator.
    ("aurltrainingjobs", "get"),
    ("events", "get"),
    ("events", "list"),
    # Without these a namespace is not served at all: the other test.
    *((kind, verb) for kind in ("aurltrainingjobs", "pods") for verb in ("list", "watch")),
}


def rights() -> list[Right]:
    """All that the operator needs in a namespace; gangs are no part of this."""
    return [
        (resource, verb)
        for rule in RULES["served"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if resource != "podgroups"
    ]


def rules(but: Right | None) -> list[dict[str, Any]]:
    found = []
    for rule in RULES["served"]:
        for resource in rule["resources"]:
            verbs = [verb for verb in rule["verbs"] if (resource, verb) != but]
            if verbs:
                found.append({"apiGroups": rule["apiGroups"], "resources": [resource], "verbs": verbs})
    return found


@dataclass
class Narrow:
    """A service account, and who it is for the operator."""

    home: str
    kubeconfig: Path
    subject: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.subject = {"kind": "ServiceAccount", "name": NAME, "namespace": self.home}

    def let(self, namespace: str, allowed: list[dict[str, Any]], name: str = NAME) -> None:
        """What it may do in a namespace."""
        group = "rbac.authorization.k8s.io"
        kinds = [
            {"kind": "Role", "rules": allowed},
            {
                "kind": "RoleBinding",
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
                "subjects": [self.subject],
            },
        ]
        metadata = {"name": name, "namespace": namespace}
        texts = [yaml.safe_dump({"apiVersion": f"{group}/v1", "metadata": metadata, **k}) for k in kinds]
        kubectl("apply", "-f", "-", stdin="---\n".join(texts))


@pytest.fixture
def narrow(namespaces: Namespaces, tmp_path: Path) -> Narrow:
    """It may take its Lease, at home, and nothing else."""
    home = namespaces()
    kubectl("-n", home, "create", "serviceaccount", NAME)
    token = kubectl("-n", home, "create", "token", NAME).stdout.strip()
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout)
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    path = tmp_path / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    made = Narrow(home, path)
    made.let(home, RULES["own"], "lease")
    return made


def lives(namespace: str, named: Callable[[], Any]) -> bool:
    """All that needs a right: whether a job came to its end, and went when its time was over.

    What a right is missing for never comes, and is waited for no longer once that right is `named`.
    """
    with Kubelet(namespace) as kubelet:
        return _lives(namespace, kubelet, named)


def _lives(namespace: str, kubelet: Kubelet, named: Callable[[], Any]) -> bool:
    common = {"image": "x", "nodes": ONE, "template": NOWHERE}
    kept = manifest(namespace, "kept", **common, cleanup={"checkpoints": "KeepBest"})
    script = manifest(
        namespace,
        "script",
        **common,
        training=None,
        command=["train.py"],
        cleanup={"pods": "All", "ttlSecondsAfterFinished": 1},
    )
    kubectl("apply", "-f", "-", stdin=f"{kept}---\n{script}")
    with contextlib.suppress(AssertionError):
        eventually("nodes run", lambda: len(kubelet.pods("node")) == 2 or named(), 120)
        for pod in kubelet.pods("node"):
            kubectl("-n", namespace, "label", "pod", pod["metadata"]["name"], "app.kubernetes.io/managed-by-")
        eventually("labels are back", lambda: len(kubelet.pods("node")) == 2 or named(), 120)
    for pod in kubelet.pods("node"):
        kubelet.end(pod, 0)
    with contextlib.suppress(AssertionError):
        eventually("script is gone", lambda: "script" not in jobs(namespace) or named(), 120)
    return "script" not in jobs(namespace)


def jobs(namespace: str) -> list[str]:
    return [
        i["metadata"]["name"]
        for i in json.loads(kubectl("-n", namespace, "get", "atj", "-o", "json").stdout)["items"]
    ]


def told(namespace: str) -> str:
    """All that `kubectl describe` shows of the jobs in a namespace."""
    events = json.loads(kubectl("-n", namespace, "get", "events", "-o", "json").stdout)["items"]
    words = [e["message"] for e in events if e["involvedObject"]["kind"] == "AurlTrainingJob"]
    return "\n".join([*words, *(json.dumps(status(namespace, name)) for name in jobs(namespace))])


def _refusal(missing: Right | None) -> str | None:
    """The API server's words."""
    return missing and f'cannot {missing[1]} resource "{missing[0]}"'


def _tells(namespace: str, words: str) -> bool:
    return words in told(namespace).replace('\\"', '"')


@pytest.mark.slow
def test_each_right_that_is_missing_is_named(narrow: Narrow, namespaces: Namespaces, tmp_path: Path) -> None:
    """One operator, and for each right a namespace in which it lacks it."""
    lacking: dict[str, Right | None] = {namespaces(): None}
    lacking |= {namespaces(): right for right in rights() if right not in UNSEEN}
    for namespace, right in lacking.items():
        narrow.let(namespace, rules(right))
    served = ",".join([narrow.home, *lacking])
    narrow.let(narrow.home, rules(None), "served")
    with (
        OperatorProcess(served, tmp_path / "log", kubeconfig=narrow.kubeconfig) as operator,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):

        def named(namespace: str) -> bool:
            """Whether the log says which right is missing there."""
            where = f'in the namespace "{namespace}"'
            words = _refusal(lacking[namespace])
            return words is not None and any(
                words in line and where in line for line in operator.log.splitlines()
            )

        def life(namespace: str) -> bool:
            return lives(namespace, lambda: named(namespace))

        ended = dict(zip(lacking, pool.map(life, lacking), strict=True))
        for namespace, right in lacking.items():
            words = _refusal(right)
            if words is None:
                assert ended[namespace], "expected a namespace with all rights to be served as ever"
                continue
            assert named(namespace), f"expected the log to say: {words} ... in the namespace {namespace!r}"
            if right != ("events", "create"):
                what = f"events or status of a job in {namespace} say: {words}"
                eventually(what, functools.partial(_tells, namespace, words))
        assert "Traceback" not in operator.log, operator.log[-3000:]


def test_a_namespace_without_rights_harms_no_other(
    narrow: Narrow, namespaces: Namespaces, tmp_path: Path
) -> None:
    """It is left out, with a line that says why, whenever its rights go, and served when they come."""
    good, bad = namespaces(), namespaces()
    for namespace in (narrow.home, good):
        narrow.let(namespace, rules(None), "served")
    served = f"{narrow.home},{good},{bad}"
    with (
        Kubelet(good) as in_good,
        Kubelet(bad) as in_bad,
        OperatorProcess(served, tmp_path / "log", kubeconfig=narrow.kubeconfig, restarts=True) as operator,
    ):
        said = f"namespace {bad} is not served: "
        eventually("it says which one it leaves out", lambda: said in operator.log)
        assert "cannot list resource" in operator.log.partition(said)[2].splitlines()[0], operator.log
        job(good)
        job(bad)
        eventually("the other one is served", whole(in_good, set()))
        assert not in_bad.names, "expected nothing where it has no rights"

        narrow.let(bad, rules(None))
        eventually("it is served when it has rights", whole(in_bad, set()), AGAIN_SECONDS + 60)

        kubectl("-n", bad, "delete", "rolebinding", NAME)
        lost = in_good.pods("node")[0]
        in_good.vanish(lost)
        eventually("the other is still served", whole(in_good, {lost["metadata"]["uid"]}, 1), 60)
        assert "Traceback" not in operator.log, operator.log[-3000:]
