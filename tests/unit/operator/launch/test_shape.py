"""Templates that are no pod's: whatever they hold, the field is named, or the pods can be made."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurl_operator.core.observed import Role
from aurl_operator.launch.pod.check import check
from aurl_operator.launch.pod.manifest import pod
from aurl_trainer.errors import ConfigError
from tests.unit.operator.launch.test_pod import DEFAULTS, job, start

GOOD: dict[str, Any] = {
    "metadata": {"labels": {"team": "music"}, "annotations": {"a": "b"}},
    "spec": {
        "affinity": {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "preference": {"matchFields": [{"key": "k", "operator": "Exists"}]}}
                ]
            }
        },
        "containers": [
            {
                "name": "trainer",
                "env": [{"name": "MINE", "value": "1"}],
                "resources": {"limits": {"cpu": 2, "memory": "1Gi"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": "health"}, "periodSeconds": 5},
            },
            {"name": "other", "image": "x", "securityContext": {"privileged": False}},
        ],
        "volumes": [{"name": "data", "emptyDir": {"sizeLimit": 1}}, {"$patch": "delete", "name": "dshm"}],
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 5}],
        "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1, "labelSelector": {}}],
        "imagePullSecrets": [{"name": "pull"}],
        "hostAliases": None,
        "ofANewerCluster": [{"what": 1}],
    },
}

JUNK: list[Any] = [
    *(None, True, 1, 1.5, "x", [], {}, ["x"], [1], [None], [[]], {"a": 1}, {"key": "gpu"}, [{"name": 1}]),
    *([{"name": ["x"]}], [{"mountPath": 1}], [{"name": "trainer", "env": {}}], {"$patch": "replace"}),
    *({"$patch": 1}, [{"$patch": "replace"}], [{"$patch": "delete", "name": "trainer"}], {"a": {"b": None}}),
]


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from _places(part, (*path, name))


def _with(place: tuple[Any, ...], junk: Any) -> dict[str, Any]:
    made = copy.deepcopy(GOOD)
    held: Any = made
    for name in place[:-1]:
        held = held[name]
    held[place[-1]] = junk
    return made


def test_a_good_template_is_taken() -> None:
    check(job(template=GOOD), DEFAULTS)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            {"spec": {"tolerations": {"key": "gpu"}}},
            "spec.template.spec.tolerations: expected a list, found dict",
        ),
        ({"metadata": {"labels": ["x"]}}, "spec.template.metadata.labels: expected fields, found list"),
        (
            {"spec": {"containers": [{"name": "trainer", "env": [{"name": 1}]}]}},
            "spec.template.spec.containers[0].env[0].name: expected text, found int",
        ),
        (
            {"spec": {"containers": [{"name": "trainer", "volumeMounts": [{"mountPath": 1}]}]}},
            "spec.template.spec.containers[0].volumeMounts[0].mountPath: expected text, found int",
        ),
        ({"spec": {"affinity": "near"}}, "spec.template.spec.affinity: expected fields, found str"),
        (
            {"spec": {"hostNetwork": "yes"}},
            "spec.template.spec.hostNetwork: expected true or false, found str",
        ),
    ],
)
def test_the_field_is_named(template: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(job(template=template), DEFAULTS)
    assert caught.value.problems == [words]


@settings(max_examples=300)
@given(st.sampled_from(sorted(_places(GOOD), key=str)), st.sampled_from(JUNK), st.sampled_from(list(Role)))
def test_any_shape_makes_pods_or_a_config_error(place: tuple[Any, ...], junk: Any, role: Role) -> None:
    template = _with(place, junk)
    try:
        made = pod(job(template=template), start(role), DEFAULTS)
    except ConfigError as error:
        assert all(problem.startswith("spec.template") for problem in error.problems), error.problems
    else:
        json.dumps(made, allow_nan=False)
