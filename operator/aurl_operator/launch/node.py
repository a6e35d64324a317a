"""From a role to the command of one of its processes: what is different on each node filled in.

Not here: the role (`appdef.py`), and who starts the command (`backends/`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torchx.specs import Role, macros

from aurl_operator.launch.command import Command
from aurl_trainer.contract import Env


@dataclass(frozen=True)
class Place:
    """One process of a role: `name` is without the attempt, `uid` is of this very process."""

    name: str
    index: int
    attempt: int
    uid: str
    termination_log: str
    progress_port: int | None = None
    log_line_prefix: str | None = None
    trained: bool = False
    """Whether the job has trained before."""


def command(role: Role, place: Place) -> Command:
    """The command of the role's process at `place`; TorchX's macros stand for job, index and address."""
    filled = macros.Values(img_root="", app_id=place.name, replica_id=str(place.index), rank0_env="").apply(
        role
    )
    env = {
        **filled.env,
        Env.NODE: place.name,
        Env.NODE_UID: place.uid,
        Env.NODE_INDEX: str(place.index),
        Env.ATTEMPT: str(place.attempt),
        Env.TERMINATION_LOG: place.termination_log,
    }
    if place.trained:
        env[Env.TRAINED] = "1"
    if place.progress_port is not None:
        env[Env.PROGRESS_PORT] = str(place.progress_port)
    if place.log_line_prefix is not None:
        env["TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"] = place.log_line_prefix
    return Command((filled.entrypoint, *filled.args), {str(name): value for name, value in env.items()})
