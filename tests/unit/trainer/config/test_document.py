"""Complaints about YAML name file, line and field, and say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurl_trainer.config.document import Document
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.errors import ConfigError, MissingError

GOOD = "seed: 3\ndata:\n  source: {music21: bach}\n"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Document.parse(text, "job.yaml").validate(Experiment)
    return caught.value.problems


def test_good() -> None:
    assert Document.parse(GOOD, "x").validate(Experiment).seed == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "model:\n  dimm: 3\n", "job.yaml:5: model.dimm: unknown field; did you mean dim?"),
        (
            GOOD + "model:\n  layers: many\n",
            "job.yaml:5: model.layers: Input should be a valid integer, unable to parse string as an "
            "integer; found 'many'",
        ),
        (
            GOOD + "model: {dim: 100, heads: 3}\n",
            "job.yaml:4: model: dim (100) must be an even multiple of heads (3)",
        ),
        ("seed: 1\n", "job.yaml:1: data: is required"),
        ("data:\n  source: {}\n", "job.yaml:2: data.source: name exactly one of music21 and midi"),
        ("a: [1\nb: 2", "job.yaml:2: not readable as YAML: expected ',' or ']', but got ':'"),
        ("seed: 1\nseed: 2\n", "job.yaml:2: not readable as YAML: 'seed' is given twice (first in line 1)"),
        ("", "job.yaml: expected one YAML document, found 0"),
        ("a: 1\n---\nb: 2\n", "job.yaml: expected one YAML document, found 2"),
        ("- 1\n", "job.yaml:1: expected a mapping of fields; found [1]"),
    ],
)
def test_problem(text: str, expected: str) -> None:
    assert problems(text) == [expected]


def test_every_problem_is_named_at_once() -> None:
    found = problems(GOOD + "model:\n  dim: -1\n  dropout: 7\nengine:\n  stepps: 3\n")
    assert [p.split(": ")[1] for p in found] == ["model.dim", "model.dropout", "engine.stepps"]


def test_python_objects_are_not_built(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    assert "could not determine a constructor" in problems(f"!!python/object/apply:os.mkdir ['{marker}']")[0]
    assert not marker.exists()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"nowhere\.yaml: cannot be read: No such file"):
        Document.read(tmp_path / "nowhere.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        Document.read(binary)


@given(st.text(max_size=200))
def test_any_text_is_a_document_or_a_config_error(text: str) -> None:
    try:
        Document.parse(text, "x")
    except ConfigError as error:
        assert error.problems
