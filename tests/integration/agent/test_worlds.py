"""Worlds that form, end and change without anybody's fault."""

from __future__ import annotations

import pytest

from aurl_trainer.contract import Cause, ExitCode
from tests.integration.agent.conftest import Agents

pytestmark = pytest.mark.processes

NODES = ["worker-0", "worker-1", "worker-2"]


def test_all_end_well(agents: Agents) -> None:
    agents.host_store()
    for name in NODES:
        agents.start(name, "3", "loop.py", "20", "--do", "worker-1:3:child")
    for name in NODES:
        code, record = agents.ends(name)
        assert (code, record.cause) == (ExitCode.OK, Cause.SUCCEEDED), agents.log(name)
        assert "finished" in agents.log(name), "the ranks' output must reach the agent's"
    agents.nothing_outlives()
