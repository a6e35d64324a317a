"""Every example is a job as it stands; all but the demo, which is for this machine, on a cluster, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurl_operator.api.load import load_job
from aurl_operator.launch.pod.check import check
from aurl_operator.launch.pod.manifest import PodDefaults
from aurl_trainer.errors import ConfigError

EXAMPLES = sorted((Path(__file__).parents[4] / "manifests" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_valid(path: Path) -> None:
    assert load_job(path).metadata.name


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_pod_on_a_cluster(path: Path) -> None:
    job = load_job(path)
    if path.name == "demo.yaml":
        # On a cluster it would have to say where its checkpoints go.
        with pytest.raises(ConfigError, match="name a place that all nodes reach"):
            check(job, PodDefaults(image="x"))
    else:
        check(job, PodDefaults(image="x"))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
