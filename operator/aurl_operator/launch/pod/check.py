"""Whether pods can be made for a job at all, told before the first one is."""

from __future__ import annotations

from aurl_operator.api.spec import AurlTrainingJob
from aurl_operator.core.names import process_name
from aurl_operator.core.observed import Role
from aurl_operator.core.plan import Start
from aurl_operator.launch.experiment import experiment
from aurl_operator.launch.pod.manifest import PodDefaults, pod
from aurl_trainer.errors import ConfigError


def check(job: AurlTrainingJob, defaults: PodDefaults) -> None:
    """Raises ConfigError for a job of which no pod could be made, or which no pod could save."""
    trained = experiment(job)
    if trained is not None and trained.checkpoint.uri is None:
        raise ConfigError(["spec.checkpoint.uri: name a place that all nodes reach, as in s3://bucket/run"])
    pod(
        job,
        Start(
            role=Role.NODE,
            index=0,
            attempt=0,
            round=1,
            name=process_name(Role.NODE, 0, 0),
            rdzv_id="check",
            nodes_min=job.spec.nodes.min,
            nodes_max=job.spec.nodes.max,
            store="127.0.0.1:1" if job.spec.nodes.max > 1 else None,
        ),
        defaults,
    )
