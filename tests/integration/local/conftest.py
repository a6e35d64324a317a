"""Runs of `aurl` as a user starts them, and a look at the processes that belong to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

SCRIPT = Path(__file__).with_name("script.py")
PATIENCE = 150.0
"""Seconds: generous, for a machine that is ten times slower than it should be."""


def wait_for(what: str, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The first true value of `condition`; fails with `what` was expected."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    pytest.fail(f"expected within {seconds:.0f} s: {what}")


class Place:
    """A folder with a job in it, and the `aurl` calls made there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "runs" / "tiny"
        self._calls: list[subprocess.Popen[str]] = []

    def write_job(self, steps: int = 20, seconds: float = 0.05, **spec: Any) -> None:
        fields = {
            "nodes": 1,
            "command": [str(SCRIPT), str(steps), str(seconds), str(self.folder)],
            "terminationGracePeriodSeconds": 20,
        }
        job = {
            "apiVersion": "aurl.dev/v1alpha1",
            "kind": "AurlTrainingJob",
            "metadata": {"name": "tiny"},
            "spec": {**fields, **spec},
        }
        (self.folder / "job.yaml").write_text(yaml.safe_dump(job))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        call = subprocess.Popen(
            [sys.executable, "-m", "aurl_operator", *arguments],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "AURL_PEER_TIMEOUT": "5", "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._calls.append(call)
        return call

    def aurl(self, *arguments: str, code: int) -> str:
        """Output of a call that must end with `code`."""
        call = self.start(*arguments)
        output, _ = call.communicate(timeout=2 * PATIENCE)
        assert call.returncode == code, f"aurl {' '.join(arguments)} ended with {call.returncode}:\n{output}"
        return output

    def status(self) -> dict[str, Any]:
        return json.loads(self.aurl("status", "tiny", "--json", code=0))

    def step(self) -> int:
        kept = self.folder / "kept.json"
        return int(json.loads(kept.read_text())["step"]) if kept.exists() else 0

    def processes(self) -> list[psutil.Process]:
        """Every living process that has this run directory in its environment: nodes, ranks, stragglers."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get("AURL_RUN_DIR") == str(self.run_dir):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def agents(self) -> dict[str, psutil.Process]:
        """Agents by node, such as `worker-0`."""
        return {
            p.environ()["AURL_NODE"]: p
            for p in self.processes()
            if "aurl_trainer.agent" in " ".join(p.cmdline()[:4])
        }

    def assert_nothing_left(self, why: str) -> None:
        wait_for(f"no process left after {why}", lambda: not self.processes(), seconds=60)

    def close(self) -> None:
        for call in self._calls:
            if call.poll() is None:
                call.kill()
            call.communicate()
        for process in self.processes():
            process.kill()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    here = Place(tmp_path.resolve())
    yield here
    here.close()
