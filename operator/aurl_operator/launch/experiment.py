"""The experiment that a `training` job's nodes get: presets resolved, the job's `checkpoint` merged in.

Also what all starts of one run must share. Not here: the experiment's fields (`aurl_trainer.config`), nor
where problems stand in the file (`api/load.py` has checked them by then).
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from aurl_operator.api.spec import AurlTrainingJob
from aurl_trainer.config.experiment import Experiment, merge, resolve
from aurl_trainer.config.reference import beside
from aurl_trainer.errors import ConfigError


def experiment(job: AurlTrainingJob, checkpoints: str | None = None) -> Experiment | None:
    """The job's experiment, None for a `command` job. `checkpoints`: their URL if neither names one.

    What `spec.checkpoint` and `spec.initFrom` say goes before what the experiment says; a run that initFrom
    calls by name lies beside `checkpoint.uri`. Raises ConfigError.
    """
    if job.spec.training is None:
        return None
    raw = resolve(job.spec.training)
    asked = job.spec.checkpoint
    keep = asked.keep.model_dump(exclude_none=True, by_alias=False)
    over = {"uri": asked.uri, "every": asked.every, "keep": keep}
    raw = merge({"checkpoint": {}}, raw)
    raw["checkpoint"] = merge(raw["checkpoint"] or {}, {k: v for k, v in over.items() if v})
    first = job.spec.init_from or raw.get("init_from")
    if isinstance(first, str):
        raw["init_from"] = beside(first, raw["checkpoint"].get("uri"))
    raw["checkpoint"].setdefault("uri", checkpoints)
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(
            [f"spec.training: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        ) from None


def identity(job: AurlTrainingJob) -> dict[str, Any]:
    """What all starts of one run share: the job's name, and what it trains or which script it runs.

    Everything else, such as nodes, recovery and deadlines, may change when a run is continued.
    """
    found = experiment(job)
    program = {"command": job.spec.command} if found is None else {"training": found.identity()}
    return {"metadata": {"name": job.metadata.name}, "spec": program}


def as_it_runs(job: AurlTrainingJob, checkpoints: str | None) -> dict[str, Any]:
    """The job object with defaults filled in and its experiment written out: what job.yaml of a run holds."""
    plain = job.to_object()
    plain.pop("status", None)
    found = experiment(job, checkpoints)
    if found is not None:
        plain["spec"]["training"] = found.model_dump(mode="json", exclude_none=True)
    return plain
