"""`aurl prepare`: what it takes, what it prints, how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from aurl_trainer.commands.prepare import prepare
from aurl_trainer.errors import ConfigError, DataError, MissingError
from tests.unit.trainer.data.conftest import Configure, WritePieces

pytestmark = pytest.mark.processes


def called(*arguments: str) -> str:
    """Standard output of the command; what it raises, as `aurl` itself would see it."""
    app = typer.Typer()
    app.command()(prepare)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def written(path: Path, value: Any) -> str:
    path.write_text(yaml.safe_dump(value))
    return str(path)


@pytest.fixture
def data(configure: Configure) -> dict[str, Any]:
    return configure().model_dump(exclude_none=True)


def test_a_job_an_experiment_and_a_preset_with_overrides_mean_the_same(
    tmp_path: Path, write_pieces: WritePieces, midi: Path, data: dict[str, Any]
) -> None:
    write_pieces(4)
    (midi / "zero.mid").write_bytes(b"")
    job = {
        "apiVersion": "aurl.dev/v1alpha1",
        "kind": "AurlTrainingJob",
        "metadata": {"name": "x"},
        "spec": {"nodes": 2, "training": {"data": data}},
    }
    inline = json.loads(called(written(tmp_path / "job.yaml", job), "--json"))
    assert inline["train"]["pieces"] == 3 and inline["validation"]["pieces"] == 1
    assert inline["train"]["tokens"] > 0 and 0 < inline["train"]["filled"] <= 1
    assert inline["rejected"] == [{"file": "zero.mid", "reason": "empty file (0 bytes)"}]
    plain = json.loads(called(written(tmp_path / "experiment.yaml", {"data": data}), "--json"))
    assert plain["key"] == inline["key"]
    job["spec"]["training"] = {"preset": "quick_test", "overrides": {"data": {**data, "transpose": 0}}}  # type: ignore[index]
    preset = json.loads(called(written(tmp_path / "job.yaml", job), "--json"))
    assert preset["key"] == inline["key"]


def test_what_people_see(tmp_path: Path, write_pieces: WritePieces, midi: Path, data: dict[str, Any]) -> None:
    write_pieces(4)
    for i in range(12):
        (midi / f"zero{i:02d}.mid").write_bytes(b"")
    text = called(written(tmp_path / "experiment.yaml", {"data": {**data, "transpose": 1}}))
    assert "3 pieces" in text and "1 pieces" in text and "transposed by up to 1 semitones" in text
    assert "rejected    12 files:" in text and "zero09.mid: empty file (0 bytes)" in text
    assert "and 2 more, which --json lists" in text and "zero10.mid" not in text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"spec": {"command": ["python", "x.py"]}}, r"job.yaml:1: spec: has no training"),
        ({"spec": {"training": {"preset": "nope"}}}, r"job.yaml:2: spec.training: no preset named 'nope'"),
        ({"spec": {"training": "quick_test"}}, r"job.yaml:2: spec.training: expected an experiment"),
        (
            {"data": {"source": {"midi": "x"}, "sequence_lenght": 5}},
            r"job.yaml:2: data.sequence_lenght: unknown",
        ),
        (["a"], r"job.yaml:1: expected an experiment"),
    ],
)
def test_a_file_that_is_not_right(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        called(written(tmp_path / "job.yaml", value))


def test_a_file_or_a_preset_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no preset named 'nope'"):
        called("nope")
    with pytest.raises(MissingError, match=r"nowhere\.yaml: cannot be read"):
        called(str(tmp_path / "nowhere.yaml"))


def test_music_that_cannot_be_used(tmp_path: Path, data: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"no \.mid or \.midi file in"):
        called(written(tmp_path / "experiment.yaml", {"data": data}))


def test_a_node_prepares_what_its_environment_holds(
    write_pieces: WritePieces, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_pieces(4)
    named = json.loads(called(written(tmp_path / "experiment.yaml", {"data": data}), "--json"))
    monkeypatch.setenv("AURL_EXPERIMENT", json.dumps({"data": data}))
    assert json.loads(called("--json"))["key"] == named["key"]
    monkeypatch.setenv("AURL_EXPERIMENT", "{")
    with pytest.raises(ConfigError, match="AURL_EXPERIMENT: not JSON"):
        called("--json")
    monkeypatch.delenv("AURL_EXPERIMENT")
    with pytest.raises(ConfigError, match="set AURL_EXPERIMENT"):
        called("--json")
