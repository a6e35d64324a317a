"""When a world saves, evaluates and samples: as its rank 0 was told.

A job's `checkpoint` may change while it runs, and its pods keep what they were started with. A save and an
evaluation take all ranks, so ranks that were told different things would wait for each other for ever.
"""

from __future__ import annotations

from typing import Any

from aurl_trainer.checkpoint.agreement import Ranks
from aurl_trainer.config.checkpoint import CheckpointConfig
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.config.monitor import MonitorConfig, SamplesConfig


def of_rank_0(experiment: Experiment, ranks: Ranks) -> Experiment:
    """`experiment` with `checkpoint`, `monitor` and `samples` of rank 0. All ranks call it."""

    def mine() -> dict[str, Any]:
        parts = {"checkpoint", "monitor", "samples"}
        return experiment.model_dump(mode="json", include=parts, exclude_defaults=True)

    told = ranks.first(mine)
    return experiment.model_copy(
        update={
            "checkpoint": CheckpointConfig.model_validate(told.get("checkpoint", {})),
            "monitor": MonitorConfig.model_validate(told.get("monitor", {})),
            "samples": SamplesConfig.model_validate(told.get("samples", {})),
        }
    )
