"""Merge patches, the Lease's decision, settings: what needs no server."""

from __future__ import annotations

import copy
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurl_operator.backends.kubernetes.act.difference import difference
from aurl_operator.backends.kubernetes.lease import DURATION, Seen, may_take
from aurl_operator.errors import UsageError
from aurl_operator.service import JsonLines
from aurl_operator.settings import Settings

LEAVES = st.one_of(st.booleans(), st.integers(-3, 3), st.text("ab", max_size=2), st.lists(st.integers(0, 2)))
OBJECTS = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        LEAVES, lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3), max_leaves=6
    ),
)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, as a server applies it."""
    if not isinstance(patch, dict):
        return patch
    result = copy.deepcopy(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@given(OBJECTS, OBJECTS)
def test_a_patch_leads_from_one_object_to_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merged(before, difference(before, after)) == after


@given(OBJECTS)
def test_nothing_changed_is_nothing_to_write(same: dict[str, Any]) -> None:
    assert difference(same, copy.deepcopy(same)) == {}


@pytest.mark.parametrize(
    ("seen", "now", "expected"),
    [
        (None, 0.0, True),
        (Seen("1", "", 0.0), 0.0, True),
        (Seen("1", "me", 0.0), 0.0, True),
        (Seen("1", "other", 0.0), DURATION, False),
        (Seen("1", "other", 0.0), DURATION + 0.1, True),
    ],
)
def test_who_may_take_the_lease(seen: Seen | None, now: float, expected: bool) -> None:
    assert may_take(seen, "me", now) is expected


def test_settings_come_from_the_environment() -> None:
    found = Settings.from_environment({"AURL_NAMESPACES": "a, b", "AURL_WORKERS": "4", "OTHER": "x"})
    assert found.namespaces == ("a", "b")
    assert found.workers == 4
    assert not found.machines, "expected machines not to be watched with rights in namespaces only"


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"AURL_WORKERS": "0"}, "AURL_WORKERS"),
        ({"AURL_LOG_FORMAT": "xml"}, "AURL_LOG_FORMAT"),
        ({"AURL_STOP_AFTER_CALLS": "3"}, "AURL_TESTING"),
    ],
)
def test_wrong_settings_are_named(env: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Settings.from_environment(env)


def test_a_line_of_the_log_names_job_incident_and_cause() -> None:
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "incident %s", "args": ("gone",), "other": "unsaid"}
        | {"job": "music/bach", "kind": "incident", "incident": "incident/u1", "cause": "deleted"}
    )
    line = json.loads(JsonLines().format(record))
    assert line["message"] == "incident gone"
    told = {name: line.get(name) for name in ("job", "kind", "incident", "cause", "other")}
    assert told == {
        "job": "music/bach",
        "kind": "incident",
        "incident": "incident/u1",
        "cause": "deleted",
        "other": None,
    }
