"""The operator as a process that cannot start or go on: it says why, has a code, and no second try within."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from aurl_operator.backends.kubernetes.client import paths
from aurl_trainer.contract import ExitCode
from tests.unit.operator.kubernetes.small_server import SmallServer

KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "users": [{"name": "u", "user": {}}],
}


@pytest.mark.parametrize("why", ["no cluster", "port taken"])
def test_a_start_that_fails_ends_the_process_in_one_line(tmp_path: Path, why: str) -> None:
    config = tmp_path / "config"
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        if why == "port taken":
            config.write_text(json.dumps(KUBECONFIG))
        env = {"KUBECONFIG": str(config), "AURL_HEALTH_PORT": port, "AURL_METRICS_PORT": "0"}
        done = subprocess.run(
            [sys.executable, "-c", "from aurl_operator.service import main; main()"],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    (told,) = [line["message"] for line in lines if line["level"] == "ERROR"]
    assert told.startswith("cannot start: "), told
    assert ("KUBECONFIG" if why == "no cluster" else f"port {port}") in told
    assert done.returncode == (ExitCode.MISSING if why == "no cluster" else ExitCode.USAGE)


@pytest.mark.parametrize(
    "program",
    [
        ("-c", "from aurl_operator.service import main; main()"),
        ("-m", "kopf", "run", "-m", "aurl_operator.app", "-A"),
    ],
    ids=["aurl-operator", "kopf run"],
)
def test_a_wrong_setting_ends_the_process_in_one_line(program: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, *program],
        env={**os.environ, "AURL_WORKERS": "many"}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.stderr.startswith("aurl-operator: AURL_WORKERS='many': "), done.stderr
    assert done.stderr.count("\n") == 1, f"expected one line, found {done.stderr}"
    assert done.returncode == ExitCode.USAGE


def test_a_leader_that_is_told_to_end_while_it_lists_hands_over(tmp_path: Path) -> None:
    asyncio.run(_told_to_end_while_it_lists(tmp_path))


async def _told_to_end_while_it_lists(tmp_path: Path) -> None:
    server = SmallServer()
    server.silent = ("/pods",)
    config, path = tmp_path / "config", f"{paths.leases('music')}/aurl-operator"
    async with server.client() as api:
        cluster = {"name": "c", "cluster": {"server": api.connection.host}}
        config.write_text(json.dumps({**KUBECONFIG, "clusters": [cluster]}))
        env = {
            **{"KUBECONFIG": str(config), "AURL_LEASE_NAMESPACE": "music", "AURL_IDENTITY": "me"},
            **{"AURL_HEALTH_PORT": "0", "AURL_METRICS_PORT": "0"},
        }
        code = "from aurl_operator.service import main; main()"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env={**os.environ, **env})
        try:
            async with asyncio.timeout(120):
                while not any("/pods" in path for _, path in server.asked):
                    await asyncio.sleep(0.05)
                assert server.objects[path]["spec"]["holderIdentity"] == "me"
                process.terminate()
                while server.objects[path]["spec"]["holderIdentity"] == "me":
                    assert process.returncode is None, "expected the Lease to be handed over before the end"
                    await asyncio.sleep(0.05)
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


HOLD = """
import asyncio
from aurl_operator import app
class Lease:
    async def hold(self):
        raise KeyError("spec")
asyncio.run(app._hold(Lease()))
print("went on without the Lease")
"""


def test_whatever_ends_the_renewing_of_the_lease_ends_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLD], capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stdout) == (1, ""), f"expected an end, found {done}"
    assert "KeyError: 'spec'" in done.stderr, "expected the log to say why"
