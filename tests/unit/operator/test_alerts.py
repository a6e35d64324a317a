"""The alert rules and the dashboard ask for what the operator tells, in words that Prometheus takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from aurl_operator.metrics import REGISTRY
from aurl_trainer.contract import Cause

CHARTS = Path(__file__).parents[3] / "charts"
RULES = CHARTS / "files/alerts.yaml"


def _expressions() -> list[str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule["expr"] for group in groups for rule in group["rules"]]
    panels = json.loads((CHARTS / "dashboards/aurl.json").read_text())["panels"]
    return rules + [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_every_metric_that_is_asked_for_is_told() -> None:
    told = {metric.name for metric in REGISTRY.collect()}
    asked = {name for text in _expressions() for name in re.findall(r"\baurl_\w+", text)}
    assert asked, "the rules and the dashboard name no metric"
    bare = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in asked}
    assert bare <= told, f"nobody tells {sorted(bare - told)}"


def test_every_cause_that_is_asked_for_exists() -> None:
    asked = {
        c
        for text in _expressions()
        for found in re.findall(r'cause=~?"([^"]+)"', text)
        for c in found.split("|")
    }
    assert asked and asked <= {str(cause) for cause in Cause}


def test_every_cause_is_counted_before_it_happens() -> None:
    """Prometheus sees no increase in a series whose first sample is 1 already."""
    code = (
        "from aurl_operator.metrics import REGISTRY\n"
        "from prometheus_client import generate_latest\n"
        "print(generate_latest(REGISTRY).decode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    for cause in Cause:
        assert f'aurl_incidents_total{{cause="{cause}"}} 0.0' in done.stdout.splitlines(), cause


_NEEDS_PROMTOOL = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


@_NEEDS_PROMTOOL
def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@_NEEDS_PROMTOOL
@pytest.mark.parametrize(("samples", "fires"), [("0x3 1x20", True), ("0x23", False)])
def test_the_first_damaged_checkpoint_is_an_alert(samples: str, fires: bool, tmp_path: Path) -> None:
    series = {'aurl_incidents_total{cause="checkpoint-damaged"}': samples}
    expected = [{"severity": "warning", "cause": "checkpoint-damaged"}] if fires else []
    _alerts(tmp_path, RULES, series, "AurlCheckpointTrouble", expected)


def _leading(release: str, pods: Sequence[str]) -> dict[str, str]:
    """What the replicas of a release tell, as a ServiceMonitor has them called."""
    target = f'namespace="{release}-system", job="{release}-operator"'
    return {f'aurl_leader{{{target}, pod="{n}"}}': values for n, values in enumerate(pods)}


@_NEEDS_PROMTOOL
@pytest.mark.parametrize(("second", "fires"), [(("0x20", "0x20"), True), (("0x20", "1x20"), False)])
def test_each_release_needs_a_leader_of_its_own(second: Sequence[str], fires: bool, tmp_path: Path) -> None:
    series = {**_leading("first", ("1x20", "0x20")), **_leading("second", second)}
    lonely = {"severity": "critical", "namespace": "second-system", "job": "second-operator"}
    _alerts(tmp_path, RULES, series, "AurlNoLeader", [lonely] if fires else [])


@_NEEDS_PROMTOOL
@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")
@pytest.mark.parametrize("there", [True, False])
def test_a_release_without_any_replica_is_missed_beside_another(there: bool, tmp_path: Path) -> None:
    sets = ["--set", "metrics.serviceMonitor=true", "--set", "metrics.prometheusRule=true"]
    argv = ["helm", "template", "second", CHARTS, "-n", "second-system", "-s", "templates/around.yaml", *sets]
    made = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    (rule,) = [item for item in yaml.safe_load_all(made) if item and item["kind"] == "PrometheusRule"]
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(rule["spec"]))
    series = {**_leading("first", ("1x20", "0x20")), **_leading("second", ("1x20",) if there else ())}
    gone = {"severity": "critical", "namespace": "second-system", "job": "second-operator"}
    _alerts(tmp_path, rules, series, "AurlNoLeader", [] if there else [gone])


def _alerts(
    folder: Path, rules: Path, series: dict[str, str], alert: str, expected: list[dict[str, str]]
) -> None:
    """Ten minutes into these series, one sample a minute, `alert` is there with the labels of `expected`."""
    words = _annotations(alert)
    case = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {
                        "eval_time": "10m",
                        "alertname": alert,
                        "exp_alerts": [{"exp_labels": e, "exp_annotations": words} for e in expected],
                    }
                ],
            }
        ],
    }
    file = folder / "case.yaml"
    file.write_text(yaml.safe_dump(case))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def _annotations(alert: str) -> dict[str, str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    (found,) = [r["annotations"] for g in groups for r in g["rules"] if r.get("alert") == alert]
    return dict(found)
