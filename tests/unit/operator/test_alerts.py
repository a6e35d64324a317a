"""The alert rules and the dashboard ask for what the operator tells, in words that Prometheus takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
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


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
