"""What the environment tells an agent. Not here: torchrun's arguments (launch.py)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from aurl_trainer.agent.beats import PEER_TIMEOUT, hang_limits
from aurl_trainer.contract import Env, Phase


@dataclass(frozen=True)
class Settings:
    """What the environment says. Seconds throughout."""

    node: str
    grace: float
    peer_timeout: float
    limits: Mapping[Phase, float]
    termination_log: str | None
    preparation: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Read AURL_*. Raises ValueError."""
        return cls(
            node=env.get(Env.NODE) or socket.gethostname(),
            grace=float(env.get(Env.GRACE_SECONDS, "30")),
            peer_timeout=float(env.get(Env.PEER_TIMEOUT, str(PEER_TIMEOUT))),
            limits=hang_limits(env.get(Env.HANG_LIMITS)),
            termination_log=env.get(Env.TERMINATION_LOG),
            preparation=tuple(map(str, json.loads(env.get(Env.PREPARE, "[]")))),
            preload=tuple(filter(None, env.get(Env.PRELOAD, "").split(","))),
        )

    @property
    def notice(self) -> float:
        """How long ranks may take after a notice: the agent needs the last of the grace for its record."""
        return max(self.grace - 3.0, 0.8 * self.grace)
