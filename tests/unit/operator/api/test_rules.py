"""Every rule that the API server is given is tried against a real one, and is a file's as well."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from aurl_operator.api.crd.changes import FIXED
from aurl_operator.api.crd.rules import rules
from aurl_operator.api.load import parse_job, parse_object
from aurl_trainer.config.document import Document
from aurl_trainer.errors import ConfigError
from tests.integration.apiserver.test_crd import CHANGED, COMMAND, REFUSED, manifest


def test_every_rule_has_a_case_in_the_tests_of_the_api_server() -> None:
    tried = [words for _, words in REFUSED]
    tried += [f"{field} cannot change: {FIXED[field]}" for _, _, field in CHANGED]
    written = [rule["message"] for found in rules().values() for rule in found]
    untried = sorted(set(written) - set(tried))
    assert not untried, f"add cases to tests/integration/apiserver/test_crd.py for {untried}"
    assert tried.count("initialSeconds is more than maxSeconds") == written.count(
        "initialSeconds is more than maxSeconds"
    ), "expected a case for each budget"


@pytest.mark.parametrize(("spec", "message"), REFUSED)
def test_what_the_api_server_refuses_a_file_is_refused_for(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_job(Document.parse(manifest("music", **spec), "job.yaml"))
    words = [re.sub(r" \(\d+\)", "", problem) for problem in caught.value.problems]
    assert len(words) == 1 and message in words[0]


HARMLESS: list[dict[str, Any]] = [
    {"scheduling": {"queue": "q"}},
    {**COMMAND, "cleanup": {"checkpoints": "Delete"}},
    {"checkpoint": {"uri": "bucket/run"}},
    {"recovery": {"crashes": {"backoff": {"initialSeconds": 50, "maxSeconds": 5}}}},
]
"""Refused when it is written, and worked all the same where a cluster holds it."""


@pytest.mark.parametrize("spec", HARMLESS)
def test_an_object_that_is_older_than_a_rule_is_worked(spec: dict[str, Any]) -> None:
    held = yaml.safe_load(manifest("music", **spec))
    with pytest.raises(ConfigError):
        parse_job(Document(held, "job.yaml"))
    assert parse_object(held).metadata.name == "bach"
