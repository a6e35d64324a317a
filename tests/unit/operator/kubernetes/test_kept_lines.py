"""The logs that nodes kept: read when the pods are gone, as far as what is asked for was kept."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aurl_operator.backends.kubernetes.kept_logs import kept_lines
from aurl_operator.backends.kubernetes.pod_log import Line, Wanted
from aurl_operator.errors import MissingError


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    logs = tmp_path / "run" / "logs" / "u"
    logs.mkdir(parents=True)
    (logs.parent / "another").mkdir()
    (logs.parent / "another" / "worker-0-0.log").write_text("of another job at this place\n")
    (logs / "worker-0-0.log").write_text("one\ntwo\n")
    (logs / "worker-1-2.log").write_text("three\n")
    return {
        "apiVersion": "aurl.dev/v1alpha1",
        "kind": "AurlTrainingJob",
        "metadata": {"name": "bach", "namespace": "ns", "uid": "u"},
        "spec": {"checkpoint": {"uri": f"file://{tmp_path}/run"}, "training": {"preset": "quick_test"}},
    }


def test_the_tails_of_all_nodes_or_of_one(job: dict[str, Any]) -> None:
    first, second, third = (
        Line("worker-0-0", "one"),
        Line("worker-0-0", "two"),
        Line("worker-1-2", "three"),
    )
    assert kept_lines(job, Wanted()) == [first, second, third]
    assert kept_lines(job, Wanted(index=1)) == [third]
    assert kept_lines(job, Wanted(tail=1)) == [second, third]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(role="store"), "only nodes keep their logs"),
        (Wanted(since=datetime(2026, 1, 1, tzinfo=UTC)), "ask without --since"),
        (Wanted(index=7), "no logs are kept at"),
    ],
)
def test_what_was_not_kept_is_said(job: dict[str, Any], wanted: Wanted, words: str) -> None:
    with pytest.raises(MissingError, match=words):
        kept_lines(job, wanted)
