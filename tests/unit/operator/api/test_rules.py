"""Every rule that the API server is given is tried against a real one."""

from __future__ import annotations

from aurl_operator.api.crd.changes import FIXED
from aurl_operator.api.crd.rules import rules
from tests.integration.apiserver.test_crd import CHANGED, REFUSED


def test_every_rule_has_a_case_in_the_tests_of_the_api_server() -> None:
    tried = [words for _, words in REFUSED]
    tried += [f"{field} cannot change: {FIXED[field]}" for _, _, field in CHANGED]
    written = [rule["message"] for found in rules().values() for rule in found]
    untried = sorted(set(written) - set(tried))
    assert not untried, f"add cases to tests/integration/apiserver/test_crd.py for {untried}"
    assert tried.count("initialSeconds is more than maxSeconds") == written.count(
        "initialSeconds is more than maxSeconds"
    ), "expected a case for each budget"
