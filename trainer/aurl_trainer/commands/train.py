"""`python -m aurl_trainer train`: one rank of a training run.

It beats before it has imported anything else. Not here: the rank (rank.py), how it ends (engine/survival/).
"""

from __future__ import annotations

from typing import Annotated

import typer


def train(
    config: Annotated[
        str | None,
        typer.Argument(help="A preset's name or a YAML file; default: what AURL_EXPERIMENT holds."),
    ] = None,
) -> None:
    """Train as one rank. Started by the agent, or alone:

    python -m aurl_trainer train quick_test
    """
    from aurl_trainer.engine.survival.exits import run_rank
    from aurl_trainer.engine.survival.heartbeat import Heartbeat

    beats = Heartbeat.from_environment()
    beats.start()

    def rank() -> None:
        from aurl_trainer.commands import rank

        rank.train(config, beats)

    run_rank(rank, beats)
