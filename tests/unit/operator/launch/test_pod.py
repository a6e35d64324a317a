"""Pods of starts: what is always ours, what a template may change, and what it may not."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from aurl_operator.api.load import parse_object
from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.core.observed import Role
from aurl_operator.core.plan import Start
from aurl_operator.launch.pod.agent_mount import config_map
from aurl_operator.launch.pod.check import check
from aurl_operator.launch.pod.manifest import PodDefaults, pod
from aurl_trainer.errors import ConfigError

DEFAULTS = PodDefaults(image="default:1")


def job(**spec: Any) -> AurlTrainingJob:
    wanted = {
        "nodes": {"min": 1, "max": 2},
        "checkpoint": {"uri": "s3://bucket/run", "secret": "s3"},
        "training": {"preset": "quick_test"},
        **spec,
    }
    return parse_object(
        {
            "apiVersion": "aurl.dev/v1alpha1",
            "kind": "AurlTrainingJob",
            "metadata": {"name": "bach", "namespace": "ns", "uid": "u1"},
            "spec": {key: value for key, value in wanted.items() if value is not None},
        }
    )


def start(role: Role = Role.NODE, **more: Any) -> Start:
    word = "worker" if role is Role.NODE else role.value
    store = "192.0.2.1:29400" if role is Role.NODE else None
    return Start(role, 0, 3, 2, f"{word}-0-3", "run-2", 1, 2, store, **more)


def env(made: dict[str, Any]) -> dict[str, Any]:
    return {e["name"]: e.get("value") for e in made["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("role", list(Role))
def test_every_pod_is_restricted_and_owned(role: Role) -> None:
    made = pod(job(), start(role), DEFAULTS)
    container = made["spec"]["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert made["spec"]["securityContext"]["runAsNonRoot"] is True
    assert made["spec"]["automountServiceAccountToken"] is False
    assert made["spec"]["restartPolicy"] == "Never"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u1"
    found = json.loads(made["metadata"]["annotations"]["aurl.dev/process"])
    assert found == {"role": role.value, "index": 0, "attempt": 3, "round": 2}


def test_the_secret_reaches_nodes_and_cleaners_only() -> None:
    has = {r: "envFrom" in pod(job(), start(r), DEFAULTS)["spec"]["containers"][0] for r in Role}
    assert has == {Role.NODE: True, Role.CLEANER: True, Role.STORE: False}


@pytest.mark.parametrize("given", [[{"configMapRef": {"name": "team"}}], None])
def test_a_template_does_not_take_the_secret_away(given: list[dict[str, Any]] | None) -> None:
    template = {"spec": {"containers": [{"name": "trainer", "envFrom": given}]}}
    secret = {"secretRef": {"name": "s3"}}
    for role in (Role.NODE, Role.CLEANER):
        made = pod(job(template=template), start(role), DEFAULTS)
        found = made["spec"]["containers"][0]["envFrom"]
        assert found == [*(given or []), secret], f"{role}: found {found}"


def test_a_cleaner_knows_whose_checkpoints_it_may_delete_as_nodes_write_it_and_can_tell_why_not() -> None:
    node, cleaner = (env(pod(job(), start(r), DEFAULTS)) for r in (Role.NODE, Role.CLEANER))
    assert cleaner["AURL_RUN_ID"] == node["AURL_RUN_ID"] == "u1"
    assert cleaner["AURL_TERMINATION_LOG"] == "/dev/termination-log"


def test_resources_are_what_the_job_says() -> None:
    given = {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"nvidia.com/gpu": 1}}
    made = pod(job(resources=given), start(), DEFAULTS)
    expected = {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"nvidia.com/gpu": "1"}}
    assert made["spec"]["containers"][0]["resources"] == expected


def test_a_store_that_is_drained_gets_the_time_that_its_nodes_have_to_save() -> None:
    found = {
        role: pod(job(terminationGracePeriodSeconds=90), start(role), DEFAULTS)["spec"]
        for role in (Role.NODE, Role.STORE)
    }
    assert {role: spec["terminationGracePeriodSeconds"] for role, spec in found.items()} == {
        Role.NODE: 90,
        Role.STORE: 90,
    }


def test_pods_listen_on_their_own_address_of_whichever_kind_the_cluster_gives() -> None:
    node, store = (pod(job(), start(role), DEFAULTS) for role in (Role.NODE, Role.STORE))
    argv = store["spec"]["containers"][0]["command"]
    assert argv[argv.index("--host") + 1] == env(node)["AURL_PROGRESS_HOST"] == "$(AURL_POD_IP)"
    for made in (node, store):
        first = made["spec"]["containers"][0]["env"][:2]
        assert {"fieldPath": "status.podIP"} in [e["valueFrom"]["fieldRef"] for e in first], (
            "expected it before what the kubelet makes of it"
        )


def test_a_replacement_bars_what_was_lost() -> None:
    made = pod(job(), start(barred=("old-1", "old-2")), DEFAULTS)
    assert env(made)["AURL_BARRED"] == "old-1,old-2"


def test_a_node_is_told_whether_its_job_has_trained_before() -> None:
    assert "AURL_TRAINED" not in env(pod(job(), start(), DEFAULTS))
    assert env(pod(job(), start(trained=True), DEFAULTS))["AURL_TRAINED"] == "1"


def test_a_node_of_ours_prepares_before_it_joins_others() -> None:
    assert json.loads(env(pod(job(), start(), DEFAULTS))["AURL_PREPARE"])[-1] == "prepare"
    foreign = job(training=None, command=["train.py"], checkpoint=None)
    assert "AURL_PREPARE" not in env(pod(foreign, start(), DEFAULTS)), "a foreign program prepares nothing"


def test_a_template_merges_as_people_know_it() -> None:
    template = {
        "metadata": {"labels": {"team": "music"}},
        "spec": {
            "nodeSelector": {"gpu": "yes"},
            "containers": [{"name": "trainer", "env": [{"name": "MINE", "value": "1"}]}],
        },
    }
    made = pod(job(template=template), start(), DEFAULTS)
    assert made["metadata"]["labels"]["team"] == "music"
    assert made["spec"]["nodeSelector"] == {"gpu": "yes"}
    assert env(made)["MINE"] == "1"
    assert env(made)["AURL_JOB"] == "bach", "expected our own variables to stay"


@pytest.mark.parametrize(
    "template",
    [
        {"spec": {"restartPolicy": "Always"}},
        {"metadata": {"labels": {"aurl.dev/job": "other"}}},
        {"spec": {"containers": [{"name": "trainer", "command": ["sh"]}]}},
        {"spec": {"containers": [{"name": "trainer", "env": [{"name": "AURL_JOB", "value": "x"}]}]}},
    ],
)
def test_what_makes_a_pod_ours_cannot_be_overridden(template: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="template"):
        check(job(template=template), DEFAULTS)


@pytest.mark.parametrize(
    ("spec", "defaults", "words"),
    [
        ({}, PodDefaults(), "image"),
        ({"checkpoint": {}}, DEFAULTS, "checkpoint.uri"),
    ],
)
def test_what_is_missing_is_named(spec: dict[str, Any], defaults: PodDefaults, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(job(**spec), defaults)


def test_a_foreign_image_gets_the_agent_and_no_more() -> None:
    foreign = job(training=None, command=["train.py", "--host", "$(HOME)"], checkpoint=None)
    files = config_map(foreign)
    assert files is not None
    assert any("Be a node's agent" in text for text in files["data"].values())
    made = pod(foreign, start(), DEFAULTS)
    mounts = [mount["name"] for mount in made["spec"]["containers"][0]["volumeMounts"]]
    assert "agent" in " ".join(mounts)
    assert made["spec"]["containers"][0]["command"][-1] == "$$(HOME)", "expected the kubelet to leave it"
    assert config_map(job()) is None


@pytest.mark.parametrize("round_", [1, 10, 12345])
def test_a_queue_takes_the_gangs_of_a_job_with_the_longest_name(round_: int) -> None:
    long = job(scheduling={"gang": "Kueue", "queue": "q"})
    found: set[str] = set()
    for name in ("bach", "a" * 53 + "-" + "b" * 9, "a" * 63, "a" * 56):
        here = long.model_copy(update={"metadata": long.metadata.model_copy(update={"name": name})})
        labels = pod(here, dataclasses.replace(start(), round=round_), DEFAULTS)["metadata"]["labels"]
        group = labels["kueue.x-k8s.io/pod-group-name"]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", group), group
        assert group.endswith(f"-round-{round_}")
        found.add(group)
    assert len(found) == 4, f"expected each job to have its own, found {found}"
    assert f"bach-round-{round_}" in found, "expected short names to stay as they are"
