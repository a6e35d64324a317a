"""Texts of jobs, and paths, are shown as they are: what looks like markup is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aurl_operator import cli
from aurl_operator.api.load import load_job
from aurl_operator.api.status import JobPhase
from aurl_operator.backends.local.rundir import RunDir
from aurl_operator.core.memory import Memory, Outcome
from aurl_operator.launch.experiment import identity
from aurl_trainer.contract import ExitCode

JOB = """
apiVersion: aurl.dev/v1alpha1
kind: AurlTrainingJob
metadata: {name: tiny}
spec: {command: [train.py]}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "train.py").touch()
    return tmp_path


def ended(folder: Path, phase: str, message: str) -> None:
    """A run of job.yaml that has ended, with one incident."""
    incident = {"id": "a", "cause": "crash", "at": "2026-01-01T00:00:00+00:00", "message": message}
    run = RunDir.open(folder, identity(load_job(Path("job.yaml"), ())))
    run.state["status"] = {"phase": phase, "message": message, "incidents": [incident]}
    outcome = Outcome(JobPhase(phase), "Ended", message, 0, 1.0)
    run.state["memory"] = json.loads(Memory(outcome=outcome).to_json())
    run.state["at"] = 1.0
    run.save()
    run.close()


TEXTS = ["[worker-1 rank 0]: boom [data]", "[/data/x] is not there", "[bold]loud", "key :warning: missing"]


@pytest.mark.parametrize("text", TEXTS)
def test_status_shows_a_message_and_a_path_as_they_are(
    text: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "runs" / "[of] us"
    ended(folder, "Failed", text)
    assert cli.main(["status", str(folder)]) == ExitCode.OK
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith(f"{folder} (not running)")
    assert told.count(text) == 2, f"once as the phase's, once as the incident's: {told}"


def test_run_names_a_finished_run_by_its_path_as_it_is(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended(here / "runs" / "[of] us", "Succeeded", "")
    assert cli.main(["run", "job.yaml", "--run-dir", "runs/[of] us"]) == ExitCode.OK
    assert capsys.readouterr().out.startswith("runs/[of] us is finished already")
