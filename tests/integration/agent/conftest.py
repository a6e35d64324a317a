"""Real agents for tests: a store, nodes, what they print, how they end, and that nothing outlives them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from aurl_trainer.contract import Env, Termination

SCRIPTS = Path(__file__).parent / "scripts"
PATIENCE = 150.0
"""Seconds: only as long as a loaded machine may need; conditions are waited for, not times."""


def eventually(what: str, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until `condition()` holds; fails with `what` otherwise."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


class Agents:
    """The agents of one job. `peer_timeout` is short, so that tests are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.peer_timeout = 5.0
        self.grace = 20.0
        self.limits: str | None = None
        self.host = "127.0.0.1"
        """Where the store listens, and what nodes are called."""
        self.preparation: list[str] = []
        self.preload = "aurl_trainer.engine.survival.exits,torch.distributed"
        """What a node's fork server imports for ranks that are modules, as loop.py is started; "": none."""
        self.extra_path: Path | None = None
        self.store: subprocess.Popen[bytes] | None = None
        self.address: str | None = None
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def host_store(self) -> None:
        """Start the store in a process of its own, on a free port."""
        self.store = self._start("store", ["store", "--host", self.host, "--port", "0"], {})
        eventually("the store says that it is ready", lambda: "store ready on" in self.log("store"))
        found = re.search(r"store ready on (\S+)", self.log("store"))
        assert found
        self.address = found[1]

    def start(
        self,
        name: str,
        nnodes: str,
        script: str,
        *args: str,
        procs: int = 1,
        barred: str = "",
        mishap: str = "",
    ) -> None:
        """Start the agent of node `name` with a script of ours and its arguments; it takes the place of
        the node with the UID `barred`. A node's UID is its name with `uid-` before it. As in a job, training
        of ours (loop.py) is a module whose imports are there already, and a foreign script is not. `mishap`
        is what happens to the agent, one of those in mishap.py."""
        ours = script == "loop.py"
        command = [
            *("run", "--nnodes", nnodes, "--nproc-per-node", str(procs), "--rdzv-id", "test"),
            *("--local-addr", self.host),
            *(("-m", "loop") if ours else (str(SCRIPTS / script),)),
            *(str(self.folder), *args),
        ]
        env = {Env.NODE: name, Env.NODE_UID: f"uid-{name}", Env.BARRED: barred}
        env |= {Env.TERMINATION_LOG: str(self.folder / f"{name}.termination")}
        if self.address:
            env[Env.STORE] = self.address
        if self.limits:
            env[Env.HANG_LIMITS] = self.limits
        if mishap:
            assert self.store is not None
            env |= {"AURL_TEST_MISHAP": mishap, "AURL_TEST_STORE": str(self.store.pid)}
        if ours:
            paths = [str(SCRIPTS), self.extra_path, os.environ.get("PYTHONPATH")]
            env["PYTHONPATH"] = os.pathsep.join(str(path) for path in paths if path)
            env[Env.PRELOAD] = self.preload
        if self.preparation:
            env[Env.PREPARE] = json.dumps(self.preparation)
        self.processes[name] = self._start(name, command, {str(k): v for k, v in env.items()})

    def _start(self, name: str, command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        ours = {
            "AURL_TEST_MARK": self.mark,
            "OMP_NUM_THREADS": "1",
            str(Env.PEER_TIMEOUT): str(self.peer_timeout),
            str(Env.GRACE_SECONDS): str(self.grace),
        }
        program = [str(SCRIPTS / "mishap.py")] if "AURL_TEST_MISHAP" in env else ["-m", "aurl_trainer.agent"]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *program, *command],
                env={**os.environ, **ours, **env},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def step(self, name: str, world: int) -> int:
        """The newest step that `name` has done in a world of that many ranks; -1 if none."""
        found = re.findall(rf"step (\d+) of world {world}\b", self.log(name))
        return int(found[-1]) if found else -1

    def redone(self, name: str) -> list[int]:
        """Steps that `name` has done more than once."""
        steps = [int(n) for n in re.findall(r"step (\d+) of world", self.log(name))]
        return sorted({step for step in steps if steps.count(step) > 1})

    def listens_to_sigterm(self, name: str) -> bool:
        """Whether the agent has a handler for SIGTERM by now."""
        status = Path(f"/proc/{self.processes[name].pid}/status").read_text()
        found = re.search(r"SigCgt:\s*(\w+)", status)
        return bool(found and int(found[1], 16) & 1 << (signal.SIGTERM - 1))

    def reaches(self, name: str, step: int, world: int) -> None:
        """Wait for a step."""
        self.waits(
            f"{name} reaches step {step} in a world of {world}", lambda: self.step(name, world) >= step
        )

    def waits(self, what: str, condition: Callable[[], object]) -> None:
        """Wait for a condition, and show the logs if it does not come."""
        try:
            eventually(what, condition)
        except BaseException:
            for name in self.processes:
                print(f"--- {name}\n{self.log(name)[-5000:]}")
            raise

    def ends(self, name: str) -> tuple[int, Termination]:
        """Wait for the agent's end: its exit code and what its record says."""
        self.waits(f"{name} ends", lambda: self.processes[name].poll() is not None)
        record = (self.folder / f"{name}.termination").read_text()
        return self.processes[name].returncode, Termination.from_json(record)

    def running(self, *names: str) -> None:
        """Fails if one of them has ended."""
        for name in names:
            assert self.processes[name].poll() is None, f"{name} has ended:\n{self.log(name)}"

    def tree(self, name: str) -> list[psutil.Process]:
        """The agent's process and all it has started."""
        agent = psutil.Process(self.processes[name].pid)
        return [agent, *agent.children(recursive=True)]

    def runs(self, name: str, script: str) -> bool:
        """Whether a rank of that node lives."""
        for process in self.tree(name)[1:]:
            try:
                if any(part.endswith(script) for part in process.cmdline()):
                    return True
            except psutil.Error:
                continue
        return False

    def survivors(self) -> list[psutil.Process]:
        """Living processes of this test, found by the mark that all of them inherit."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and (
                    process.environ().get("AURL_TEST_MARK") == self.mark
                ):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def nothing_outlives(self) -> None:
        """Wait until no process of the agents is left; the store is the test's own."""
        own = {self.store.pid} if self.store else set()
        self.waits("all processes are gone", lambda: not [p for p in self.survivors() if p.pid not in own])

    def stop(self) -> None:
        for process in self.survivors():
            try:
                process.send_signal(signal.SIGCONT)
                process.kill()
            except psutil.Error:
                continue
        for started in [*self.processes.values(), *([self.store] if self.store else [])]:
            started.wait()


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    made = Agents(tmp_path)
    try:
        yield made
    finally:
        made.stop()
