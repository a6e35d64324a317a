from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from aurl_operator.api import recovery, spec, status
from aurl_operator.api.base import ApiModel
from aurl_operator.api.spec import AurlTrainingJob, JobSpec
from aurl_operator.api.status import JobStatus


def models() -> Iterator[type[BaseModel]]:
    for module in (spec, recovery):
        for thing in vars(module).values():
            if (
                isinstance(thing, type)
                and issubclass(thing, ApiModel)
                and thing.__module__ == module.__name__
            ):
                yield thing


def nodes_of(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from nodes_of(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes_of(value)


def test_the_spec_has_every_field_of_the_design() -> None:
    names = {f.alias for f in JobSpec.model_fields.values()}
    assert names >= {
        "image", "nodes", "procsPerNode", "resources", "training", "command", "checkpoint", "recovery",
        "cleanup", "activeDeadlineSeconds", "startTimeoutSeconds", "suspend", "scheduling",
        "serviceAccountName", "template",
    }  # fmt: skip


@pytest.mark.parametrize("model", list(models()), ids=lambda m: m.__name__)
def test_every_model_is_described(model: type[BaseModel]) -> None:
    assert model.__doc__ and model.__doc__ != ApiModel.__doc__


def test_every_string_and_list_a_user_writes_is_bounded() -> None:
    schema = JobSpec.model_json_schema(by_alias=True)
    for node in nodes_of(schema):
        if node.get("type") == "string" and "enum" not in node and "const" not in node:
            assert "maxLength" in node, f"a string without maxLength: {node}"
        if node.get("type") == "array":
            assert "maxItems" in node, f"a list without maxItems: {node}"


def test_partial_budgets_keep_the_defaults_of_their_kind() -> None:
    made = recovery.Recovery.model_validate(
        {"crashes": {"refill": "Never"}, "preemptions": {"backoff": {"maxSeconds": 5}}}
    )
    assert made.crashes.limit == 3
    assert made.preemptions.backoff.initial_seconds == 1 and made.preemptions.limit is None


def test_metadata_as_the_api_server_writes_it_is_accepted() -> None:
    job = AurlTrainingJob.model_validate(
        {
            "apiVersion": spec.API_VERSION,
            "kind": spec.KIND,
            "metadata": {
                "name": "x", "namespace": "music", "uid": "5f", "resourceVersion": "12", "generation": 2,
                "creationTimestamp": "2025-01-01T00:00:00Z", "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {"command": ["train.py"]},
            "status": {"phase": "Running", "aFieldOfTomorrow": 1},
        }
    )  # fmt: skip
    assert job.status is not None and job.status.phase is status.JobPhase.RUNNING


def test_the_status_round_trips() -> None:
    made = JobStatus.model_validate({"phase": "Failed", "restarts": {"crash": 2}, "goodput": {"ratio": 0.5}})
    assert JobStatus.model_validate(made.to_object()) == made
