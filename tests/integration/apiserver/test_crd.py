"""What the API server itself makes of jobs: types, rules, defaults, columns, scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from aurl_operator.api.crd.changes import FIXED
from tests.integration.apiserver.client import job_object
from tests.integration.apiserver.conftest import ROOT, kubectl

CHECKPOINT = {"uri": "s3://bucket/run"}


def manifest(namespace: str, name: str = "bach", **spec: Any) -> str:
    whole = {
        "apiVersion": "aurl.dev/v1alpha1",
        "kind": "AurlTrainingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"training": {"preset": "quick_test"}, "checkpoint": CHECKPOINT, **spec},
    }
    return yaml.safe_dump({**whole, "spec": {k: v for k, v in whole["spec"].items() if v is not None}})


def apply(text: str) -> str:
    """What kubectl says to an object that is refused."""
    done = kubectl("apply", "-f", "-", stdin=text, check=False)
    assert done.returncode != 0, f"expected a refusal, but it was taken:\n{text}"
    return done.stderr


def get(namespace: str, name: str = "bach") -> dict[str, Any]:
    return job_object(namespace, name)


BACKOFF = {"initialSeconds": 50, "maxSeconds": 5}


COMMAND = {"training": None, "command": ["train.py"]}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"training": None}, "name exactly one of training and command"),
    ({"command": ["train.py"]}, "name exactly one of training and command"),
    ({"scheduling": {"queue": "q"}}, "scheduling.queue needs scheduling.gang: Volcano or Kueue"),
    (
        {**COMMAND, "cleanup": {"checkpoints": "Delete"}},
        "cleanup.checkpoints: Aurl does not know the checkpoints of a command; use Keep",
    ),
    (
        {**COMMAND, "initFrom": "s3://bucket/other"},
        "initFrom goes with training; a command loads its own checkpoints",
    ),
    (
        {"initFrom": "s3://me:secret@bucket/other"},
        "initFrom: a password does not belong into a job; use checkpoint.secret",
    ),
    ({"checkpoint": {"uri": "bucket/run"}}, "uri: expected a URL, as in s3://bucket/run"),
    (
        {"checkpoint": {"uri": "s3://me:secret@bucket/run"}},
        "uri: a password does not belong into a job; use checkpoint.secret",
    ),
    *[
        ({"recovery": {budget: {"backoff": BACKOFF}}}, "initialSeconds is more than maxSeconds")
        for budget in ("preemptions", "nodeLost", "crashes", "hang", "outOfMemory")
    ],
    ({"nodes": {"min": 3, "max": 1}}, "min is more than max"),
]
"""Against a rule in CEL, and the rule's words."""

CHANGED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"training": {"preset": "high_quality"}}, "training"),
    (COMMAND, {"training": None, "command": ["b.py"]}, "command"),
    ({}, {"procsPerNode": 2}, "procsPerNode"),
    ({}, {"checkpoint": {"uri": "s3://bucket/other"}}, "checkpoint.uri"),
    ({"checkpoint": {"every": 5}}, {}, "checkpoint.uri"),
    ({}, {"initFrom": "s3://bucket/other"}, "initFrom"),
    ({}, {"scheduling": {"gang": "Volcano"}}, "scheduling.gang"),
]
"""Before, after, and the field that may not change; absent fields included."""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        *REFUSED,
        ({"nodes": 2}, "spec.nodes"),
        ({"procsPerNode": 0}, "spec.procsPerNode"),
        ({"cleanup": {"pods": "Some"}}, "spec.cleanup.pods"),
        ({"imagee": "x"}, "imagee"),
        ({"resources": {"limits": {"memory": [1]}}}, "spec.resources.limits.memory"),
    ],
)
def test_what_is_wrong_is_refused_with_words(namespace: str, spec: dict[str, Any], message: str) -> None:
    assert message in apply(manifest(namespace, **spec))


@pytest.mark.parametrize(("before", "after", "field"), CHANGED)
def test_what_a_run_is_made_of_cannot_change(
    namespace: str, before: dict[str, Any], after: dict[str, Any], field: str
) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(namespace, **before))
    assert f"{field} cannot change: {FIXED[field]}" in apply(manifest(namespace, **after))


def test_what_may_change_does(namespace: str) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(namespace, nodes={"min": 2, "max": 2}))
    changes = {
        "nodes": {"min": 1, "max": 4},
        "suspend": True,
        "image": "other",
        "activeDeadlineSeconds": 60,
        "recovery": {"crashes": {"limit": 9}},
        "cleanup": {"pods": "All"},
    }
    kubectl("apply", "-f", "-", stdin=manifest(namespace, **changes))
    assert get(namespace)["spec"]["nodes"] == {"min": 1, "max": 4}


def test_defaults_are_filled_in(namespace: str) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(namespace))
    spec = get(namespace)["spec"]
    assert spec["nodes"] == {"min": 1, "max": 1}
    assert spec["recovery"]["crashes"]["limit"] == 3
    assert spec["cleanup"] == {"checkpoints": "Keep", "pods": "Running"}


def test_scaling_sets_the_upper_end(namespace: str) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(namespace, nodes={"min": 1, "max": 2}))
    kubectl("-n", namespace, "scale", "atj/bach", "--replicas=5")
    assert get(namespace)["spec"]["nodes"] == {"min": 1, "max": 5}


def test_a_name_of_63_characters_is_the_longest(namespace: str) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(namespace, name="b" * 63))
    assert "metadata.name" in apply(manifest(namespace, name="b" * 64))


def test_people_read_it_in_columns(namespace: str) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(namespace))
    printed = kubectl("-n", namespace, "get", "aurl").stdout.splitlines()[0].split()
    assert printed == ["NAME", "PHASE", "READY", "NODES", "STEP", "OF", "GOODPUT", "AGE"]
    explained = kubectl("explain", "atj.spec.cleanup").stdout
    assert "What goes when the job has ended or is deleted." in explained


def test_an_object_of_an_older_definition_stays_readable(namespace: str, tmp_path: Path) -> None:
    """A field that the definition gains does no harm to what was written before."""
    path = ROOT / "charts/files/crd.yaml"
    older = yaml.safe_load(path.read_text())
    schema = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del schema["properties"]["finishTimeoutSeconds"]
    try:
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump(older))
        kubectl("apply", "-f", "-", stdin=manifest(namespace), check=True)
    finally:
        kubectl("apply", "--server-side", "--force-conflicts", "-f", str(path))
    kubectl("-n", namespace, "patch", "atj", "bach", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    assert get(namespace)["spec"]["suspend"] is True
