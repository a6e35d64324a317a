"""Every example is a job as it stands, here and on a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurl_operator.api.load import load_job

EXAMPLES = sorted((Path(__file__).parents[4] / "manifests" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_valid(path: Path) -> None:
    assert load_job(path).metadata.name


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
