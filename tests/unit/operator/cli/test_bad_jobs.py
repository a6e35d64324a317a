"""Bad jobs: the exact line, the right exit code, nothing written and no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aurl_operator import cli
from aurl_trainer.contract import ExitCode

HEAD = "apiVersion: aurl.dev/v1alpha1\nkind: AurlTrainingJob\nmetadata: {name: tiny}\nspec:\n"
GOOD = HEAD + "  nodes: {min: 1, max: 2}\n  command: [train.py]\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


BAD = {
    "an unknown field": (
        GOOD.replace("nodes:", "nodez:"),
        "error: job.yaml:5: spec.nodez: unknown field; did you mean nodes?\n",
    ),
    "a wrong type": (
        GOOD.replace("max: 2", "max: two"),
        "error: job.yaml:5: spec.nodes.max: Input should be a valid integer; found 'two'\n",
    ),
    "min above max": (
        GOOD.replace("min: 1", "min: 3"),
        "error: job.yaml:5: spec.nodes: min (3) is more than max (2)\n",
    ),
    "a wait above its longest": (
        GOOD + "  recovery:\n    crashes:\n      backoff: {initialSeconds: 9, maxSeconds: 5}\n",
        "error: job.yaml:9: spec.recovery.crashes.backoff: initialSeconds (9) is more than maxSeconds (5)\n",
    ),
    "not YAML": (
        HEAD + "  nodes: {min: 1\n  command: [train.py]\n",
        "error: job.yaml:6: not readable as YAML: expected ',' or '}', but got ':'\n",
    ),
    "a field given twice": (
        GOOD + "  nodes: 2\n",
        "error: job.yaml:7: not readable as YAML: 'nodes' is given twice (first in line 5)\n",
    ),
    "an unknown field of the experiment": (
        HEAD + "  training:\n    preset: quick_test\n    overrides:\n      engine: {step: 5}\n",
        "error: job.yaml:8: spec.training.overrides.engine.step: unknown field; did you mean steps?\n",
    ),
    "neither training nor command": (
        HEAD + "  nodes: 1\n",
        "error: job.yaml:4: spec: name exactly one of training and command\n",
    ),
    "an empty file": ("", "error: job.yaml: expected one YAML document, found 0\n"),
}


@pytest.mark.parametrize("command", ["validate", "run", "explain"])
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_job_is_refused_in_words(
    kind: str, command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, said = BAD[kind]
    (here / "job.yaml").write_text(text)
    assert cli.main([command, "job.yaml"]) == ExitCode.INVALID_JOB
    assert capsys.readouterr().err == said
    assert [p.name for p in here.iterdir()] == ["job.yaml"], "nothing is half-written"


def test_all_problems_are_told_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "job.yaml").write_text(GOOD.replace("max: 2", "max: two") + "  suspend: 3\n")
    assert cli.main(["validate", "job.yaml"]) == ExitCode.INVALID_JOB
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_missing_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "job.yaml"]) == ExitCode.MISSING
    assert capsys.readouterr().err == "error: job.yaml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("nodes.max=two", "error: --set nodes.max=two: spec.nodes.max: Input should be a valid integer"),
        ("nodes.most=2", "error: --set nodes.most=2: spec.nodes.most: unknown field"),
        ("nodes", "error: --set nodes: expected path=value"),
    ],
)
def test_a_bad_override_is_named(
    setting: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "job.yaml").write_text(GOOD)
    assert cli.main(["validate", "job.yaml", "--set", setting]) == ExitCode.INVALID_JOB
    assert capsys.readouterr().err.startswith(said)


def test_validate_as_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "job.yaml").write_text(GOOD)
    assert cli.main(["validate", "job.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"valid": True, "problems": []}
    (here / "job.yaml").write_text(GOOD.replace("min: 1", "min: 3"))
    assert cli.main(["validate", "job.yaml", "--json"]) == ExitCode.INVALID_JOB
    verdict = json.loads(capsys.readouterr().out)
    assert verdict == {"valid": False, "problems": ["job.yaml:5: spec.nodes: min (3) is more than max (2)"]}


def test_validate_says_what_a_good_job_does(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "job.yaml").write_text(HEAD + "  nodes: 2\n  procsPerNode: 2\n  training: {preset: quick_test}\n")
    assert cli.main(["validate", "job.yaml"]) == 0
    out = capsys.readouterr().out
    assert out == "job.yaml is valid: tiny trains 400 steps of 8 samples on 2 nodes of 2 ranks\n"


@pytest.mark.parametrize(
    "event",
    [
        ["--kill", "worker-1"],
        ["--kill", "worker-1@epoch:3"],
        ["--kill", "worker-1/0@step:3"],
        ["--kill-rank", "worker-1@step:3"],
        ["--preempt", "store@step:3"],
        ["--kill", "node-1@step:3"],
    ],
)
def test_a_bad_event_is_a_usage_error(
    event: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "job.yaml").write_text(GOOD)
    assert cli.main(["rehearse", "job.yaml", *event]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith(f"error: {' '.join(event)}: ")
    assert not (here / "runs").exists()


def test_status_of_no_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "nowhere"]) == ExitCode.MISSING
    assert capsys.readouterr().err.startswith("error: nowhere: no run here")


def test_explain_shows_once_what_all_nodes_are_given(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "job.yaml").write_text(HEAD + "  nodes: 3\n  training: {preset: quick_test}\n")
    assert cli.main(["explain", "job.yaml"]) == 0
    shown = capsys.readouterr().out
    for name in ("AURL_EXPERIMENT", "AURL_STORE", "AURL_RUN_ID"):
        assert shown.count(f"{name}=") == 1, f"expected {name} once"
    assert shown.count("AURL_PROGRESS_PORT=") == 3, "expected what nodes have of their own beside each"


def test_explain_starts_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "job.yaml").write_text(GOOD)
    assert cli.main(["explain", "job.yaml", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in shown["processes"]] == ["store-0-0", "worker-0-0", "worker-1-0"]
    store, first, _ = shown["processes"]
    assert first["argv"][-1] == "train.py" and "1:2" in first["argv"]
    port = store["argv"][store["argv"].index("--port") + 1]
    assert first["env"]["AURL_STORE"] == f"127.0.0.1:{port}", "nodes look for the store where it listens"
    assert {r["name"] for r in shown["rules"]} >= {"start time-out", "crashes", "preemptions", "hang"} - {
        "hang"
    }
    assert [p.name for p in here.iterdir()] == ["job.yaml"]
