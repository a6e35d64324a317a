from __future__ import annotations

from pathlib import Path

import pytest

from aurl_operator.api.load import load_job, override, parse_job
from aurl_operator.api.spec import AurlTrainingJob
from aurl_trainer.config.document import Document
from aurl_trainer.errors import ConfigError, MissingError

GOOD = """\
apiVersion: aurl.dev/v1alpha1
kind: AurlTrainingJob
metadata: {name: bach}
spec:
  nodes: {min: 1, max: 2}
  training:
    preset: quick_test
    overrides:
      engine: {steps: 50}
"""


def load(text: str, *overrides: str) -> AurlTrainingJob:
    return parse_job(Document.parse(text, "job.yaml"), overrides)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return caught.value.problems


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_job_loads_with_its_defaults() -> None:
    job = load(GOOD)
    assert (job.metadata.name, job.spec.nodes.min, job.spec.nodes.max) == ("bach", 1, 2)
    assert job.spec.recovery.crashes.limit == 3 and job.spec.recovery.preemptions.limit is None


def test_a_bare_number_of_nodes_is_a_range_of_one() -> None:
    nodes = load(changed("{min: 1, max: 2}", "3")).spec.nodes
    assert (nodes.min, nodes.max) == (3, 3)


def test_what_is_written_out_reads_back_the_same() -> None:
    job = load(GOOD)
    assert AurlTrainingJob.model_validate(job.to_object()) == job


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{min: 1, max: 2}", "{min: 3, max: 2}", "job.yaml:5: spec.nodes: min (3) is more than max (2)"),
        (
            "{min: 1, max: 2}",
            '"2"',
            "job.yaml:5: spec.nodes: expected a number from 1 to 1024, or {min, max}; found '2'",
        ),
        (
            "{min: 1, max: 2}",
            "0",
            "job.yaml:5: spec.nodes: expected a number from 1 to 1024, or {min, max}; found 0",
        ),
        ("  nodes:", "  nodess:", "job.yaml:5: spec.nodess: unknown field; did you mean nodes?"),
        (
            "name: bach",
            "name: Bach",
            "job.yaml:3: metadata.name: use lower-case letters, digits and dashes, "
            "as in bach-1; found 'Bach'",
        ),
        (
            "{steps: 50}",
            "{step: 50}",
            "job.yaml:9: spec.training.overrides.engine.step: unknown field; did you mean steps?",
        ),
        (
            "quick_test",
            "quick",
            "job.yaml:6: spec.training: no preset named 'quick'; there are: high_quality, quick_test",
        ),
        (
            "v1alpha1",
            "v1",
            "job.yaml:1: apiVersion: Input should be 'aurl.dev/v1alpha1'; found 'aurl.dev/v1'",
        ),
        (
            "  training:",
            "  suspend: 'yes'\n  training:",
            "job.yaml:6: spec.suspend: Input should be a valid boolean; found 'yes'",
        ),
        (
            "  training:",
            "  procsPerNode: '2'\n  training:",
            "job.yaml:6: spec.procsPerNode: Input should be a valid integer; found '2'",
        ),
        (
            "  training:",
            "  procs_per_node: 2\n  training:",
            "job.yaml:6: spec.procs_per_node: unknown field; did you mean procsPerNode?",
        ),
        (
            "  training:",
            "  command: [a.py]\n  training:",
            "job.yaml:4: spec: name exactly one of training and command",
        ),
        (
            "  training:",
            "  resources: {limits: {cpu: lots}}\n  training:",
            "job.yaml:6: spec.resources.limits.cpu: expected a quantity such as 2, 500m or 8Gi; found 'lots'",
        ),
        (
            "  training:",
            "  recovery: {rules: [{exitCodes: [3, 4], cause: Crash}, "
            "{exitCodes: [4], cause: Hang}]}\n  training:",
            "job.yaml:6: spec.recovery: rules: exit code 4 is named by two rules; keep one",
        ),
    ],
)
def test_each_mistake_is_one_line_with_its_place(old: str, new: str, expected: str) -> None:
    assert problems(changed(old, new)) == [expected]


@pytest.mark.parametrize(
    ("place", "setting"),
    [
        ("spec.checkpoint.uri", "checkpoint.uri"),
        ("spec.initFrom", "initFrom"),
        ("spec.training.overrides.checkpoint.uri", "training.checkpoint.uri"),
        ("spec.training.overrides.init_from", "training.init_from"),
        ("spec.training.overrides.data.source.midi", "training.data.source.midi"),
        ("spec.training.overrides.data.source.labels", "training.data.source.labels"),
    ],
)
def test_a_password_in_a_url_is_refused_wherever_it_can_be_written(place: str, setting: str) -> None:
    there = ["training.data.source={midi: sftp://me@host/midi}"] if "source" in setting else []
    (words,) = problems(GOOD, *there, f"{setting}=sftp://me:s3cr3t@host/run")
    assert f": {place}: a password does not belong into a job; use checkpoint.secret" in words
    assert load(GOOD, *there, f"{setting}=sftp://me@host/run")


def test_all_problems_are_told_at_once() -> None:
    text = changed("name: bach", "name: Bach").replace("{steps: 50}", "{step: 50}")
    assert len(problems(text)) == 2


def test_unreadable_yaml_names_the_line() -> None:
    (line,) = problems("apiVersion: a\nspec: {nodes: [\n")
    assert line.startswith("job.yaml:3: not readable as YAML")


def test_a_list_is_not_a_job() -> None:
    assert problems("- 1\n") == ["job.yaml:1: expected a mapping with apiVersion, kind, metadata, spec"]


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="cannot be read"):
        load_job(tmp_path / "job.yaml")


def test_overrides_reach_everywhere() -> None:
    job = load(GOOD, "nodes.max=4", "metadata.name=other", "spec.suspend=true", "training.engine.steps=7")
    assert (job.spec.nodes.min, job.spec.nodes.max, job.metadata.name) == (1, 4, "other")
    assert job.spec.suspend and job.spec.training is not None
    assert job.spec.training["overrides"]["engine"] == {"steps": 7}


def test_an_override_of_a_bare_number_of_nodes_opens_the_range() -> None:
    nodes = load(changed("{min: 1, max: 2}", "2"), "nodes.max=5").spec.nodes
    assert (nodes.min, nodes.max) == (2, 5)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("nodes.max", "--set nodes.max: expected path=value, as in --set nodes.max=3"),
        (
            "nodes.max=many",
            "--set nodes.max=many: spec.nodes.max: Input should be a valid integer; found 'many'",
        ),
        ("nodes.min=9", "--set nodes.min=9"),
        (
            "training.engine.stepz=5",
            "--set training.engine.stepz=5: spec.training.overrides.engine.stepz: "
            "unknown field; did you mean steps?",
        ),
        (
            "metadata.name.first=x",
            "--set metadata.name.first=x: metadata.name is 'bach', which has no fields",
        ),
        ("nodes={", "--set nodes={: '{' is not YAML"),
    ],
)
def test_a_wrong_override_names_itself(setting: str, expected: str) -> None:
    (line,) = problems(GOOD, setting)
    if setting == "nodes.min=9":
        assert "min (9) is more than max (2)" in line
    else:
        assert line.startswith(expected)


def test_overriding_changes_nothing_of_what_was_given() -> None:
    value = {"spec": {"command": ["a.py", "--lr", "1"]}}
    result, _ = override(value, ["command.2=0.5", "nodes=3"])
    assert value == {"spec": {"command": ["a.py", "--lr", "1"]}}
    assert result == {"spec": {"command": ["a.py", "--lr", 0.5], "nodes": 3}}
