"""What is installed without Helm is what the chart makes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.integration.apiserver.conftest import ROOT, kubectl


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")
def test_install_yaml_is_what_the_chart_makes(apiserver: None, tmp_path: Path) -> None:
    values = {
        "image.repository": "docker.io/local/aurl-operator",
        "image.tag": "dev",
        "defaultImage": "docker.io/local/aurl-trainer:dev",
    }
    sets = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    argv = ["helm", "template", "aurl", str(ROOT / "charts"), "-n", "aurl-system", "--skip-tests", *sets]
    made = subprocess.run(argv, text=True, capture_output=True, timeout=60, check=True).stdout
    wanted = [item for item in yaml.safe_load_all(made) if item]
    for item in wanted:
        (item["metadata"].get("labels") or {}).pop("helm.sh/chart", None)
        template = item.get("spec", {}).get("template", {}).get("metadata", {})
        (template.get("labels") or {}).pop("helm.sh/chart", None)
    text = (ROOT / "manifests/install.yaml").read_text()
    namespace, *found = [item for item in yaml.safe_load_all(text) if item]
    assert namespace["kind"] == "Namespace"
    assert found == wanted, "run: make manifests/install.yaml"


def test_the_api_server_takes_install_yaml(namespace: str) -> None:
    text = (ROOT / "manifests/install.yaml").read_text().replace("aurl-system", namespace)
    done = kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", stdin=text)
    assert "deployment.apps/aurl-operator" in done.stdout


def test_the_chart_takes_every_option(apiserver: None) -> None:
    if shutil.which("helm") is None:
        pytest.skip("helm is not installed")
    options = ("metrics.dashboard=true", "metrics.prometheusRule=true", "metrics.serviceMonitor=true")
    sets = [part for option in options for part in ("--set", option)]
    argv = ["helm", "template", "aurl", str(ROOT / "charts"), *sets]
    made = subprocess.run(argv, text=True, capture_output=True, timeout=60, check=True).stdout
    kinds = {item["kind"] for item in yaml.safe_load_all(made) if item}
    assert {"ServiceMonitor", "PrometheusRule", "ConfigMap"} <= kinds
