"""Policies of a cluster's owners that deny pods: a wait with a name, since they may change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.apiserver.conftest import kubectl
from tests.integration.apiserver.kubelet import Kubelet
from tests.integration.apiserver.operator import OperatorProcess
from tests.integration.apiserver.test_operator import ONE, condition, eventually, job, status

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "probe"},
    "spec": {"containers": [{"name": "c", "image": "x"}]},
}


@pytest.fixture
def policy(namespace: str) -> Iterator[str]:
    """One that denies all pods of the namespace, by the API server's own means. It is in force."""
    name = f"no-pods-{namespace}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    only_here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    words = {
        "matchConstraints": {"resourceRules": [rule], **only_here},
        "validations": [{"expression": "false", "message": "no pods on Sundays"}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    for kind, spec in (("ValidatingAdmissionPolicy", words), ("ValidatingAdmissionPolicyBinding", binding)):
        head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}}
        kubectl("apply", "-f", "-", stdin=json.dumps({**head, "spec": spec}))
    ask = ("-n", namespace, "create", "--dry-run=server", "-f", "-")
    eventually("the policy denies", lambda: kubectl(*ask, stdin=json.dumps(POD), check=False).returncode)
    yield name
    _lift(name)


def _lift(policy: str) -> None:
    for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
        kubectl("delete", kind, policy, "--ignore-not-found")


def test_a_job_whose_pods_a_policy_denies_waits_and_goes_on(
    namespace: str, tmp_path: Path, policy: str
) -> None:
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log"):
        job(namespace, nodes=ONE)
        # The plan is told before it is tried: first it starts.
        found = eventually(
            "a refusal", lambda: (c := condition(namespace, "Waiting")).get("reason") == "Refused" and c
        )
        assert "no pods on Sundays" in found["message"], found
        assert status(namespace)["phase"] != "Failed", "a policy may change: expected the job to wait"
        _lift(policy)
        eventually("its node runs", lambda: kubelet.names)
