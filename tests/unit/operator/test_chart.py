"""What the chart makes of its options. Not here: what it looks up in a cluster (tests/integration)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from aurl_operator import metrics

CHARTS = Path(__file__).parents[3] / "charts"

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")


def _made(*options: str) -> list[dict[str, Any]]:
    """All objects of a release with these options of `helm template`."""
    argv = ["helm", "template", "aurl", str(CHARTS), "-n", "aurl-system", *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


@pytest.mark.parametrize("tag", ["1", "0", "20240101", "1.10", "v1"])
def test_a_tag_that_is_a_number_stays_as_it_was_written(tag: str, tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(f"image: {{tag: {tag if tag.isdigit() else repr(tag)}}}")
    for options in (("--set", f"image.tag={tag}"), ("-f", str(tmp_path / "values.yaml"))):
        pods = [item["spec"] for item in _made(*options) if item["kind"] in ("Deployment", "Pod")]
        images = {spec.get("template", {}).get("spec", spec)["containers"][0]["image"] for spec in pods}
        assert len(pods) == 2 and images == {f"aurl-operator:{tag}"}, f"{options}: found {images}"


def test_without_a_tag_the_image_is_of_the_charts_version() -> None:
    version = yaml.safe_load((CHARTS / "Chart.yaml").read_text())["appVersion"]
    (deployment,) = [item for item in _made() if item["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"aurl-operator:{version}"


MONITORING = ("--set", "metrics.serviceMonitor=true", "--set", "metrics.prometheusRule=true")


def test_a_prometheus_finds_its_objects_by_labels_of_its_own() -> None:
    wanted = ("release=prometheus", r"app\.kubernetes\.io/name=other")
    sets = [part for label in wanted for part in ("--set", f"metrics.labels.{label}")]
    kinds = ("ServiceMonitor", "PrometheusRule")
    labels = [i["metadata"]["labels"] for i in _made(*MONITORING, *sets) if i["kind"] in kinds]
    assert len(labels) == 2
    for found in labels:
        assert found["release"] == "prometheus"
        assert found["app.kubernetes.io/name"] == "aurl-operator", "expected the chart's own labels to stay"


def test_a_jobs_series_keep_its_name_and_namespace() -> None:
    assert {"namespace", "job"} <= set(metrics.GOODPUT._labelnames)
    (monitor,) = [item for item in _made(*MONITORING) if item["kind"] == "ServiceMonitor"]
    assert [endpoint["honorLabels"] for endpoint in monitor["spec"]["endpoints"]] == [True]
