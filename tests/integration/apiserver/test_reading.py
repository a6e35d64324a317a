"""What people ask about a job on a cluster: status, explain, and TorchX's describe, list and cancel."""

from __future__ import annotations

import json
from pathlib import Path

from torchx.runner import get_runner
from torchx.specs import AppState

from aurl_operator.torchx.components import train
from aurl_trainer.contract import ExitCode
from tests.integration.apiserver.conftest import kubectl
from tests.integration.apiserver.kubelet import Kubelet
from tests.integration.apiserver.operator import OperatorProcess
from tests.integration.apiserver.test_operator import aurl, eventually, job, status, whole


def test_status_and_explain_of_a_job_that_lost_a_node(namespace: str, tmp_path: Path) -> None:
    with Kubelet(namespace) as kubelet, OperatorProcess(namespace, tmp_path / "log"):
        job(namespace)
        nodes = eventually("both nodes run", whole(kubelet, set()))
        kubelet.vanish(nodes[1])
        eventually("its loss is booked", lambda: status(namespace).get("incidents"))
        shown = aurl("status", "bach", "-n", namespace)
        assert shown.returncode == 0, shown.stderr
        assert "deleted" in shown.stdout
        plain = json.loads(aurl("status", "bach", "-n", namespace, "--json").stdout)
        assert plain["status"]["restarts"] == {"deleted": 1}
        assert "memory" not in plain["status"], "expected nothing that is not for people"
        explained = aurl("explain", "bach", "-n", namespace)
        assert explained.returncode == 0, explained.stderr
        assert "rules" in explained.stdout
        assert "deleted" in explained.stdout
        assert aurl("status", "nobody", "-n", namespace).returncode == ExitCode.MISSING


def test_no_pods_and_no_kept_logs_are_said_in_one_line(namespace: str) -> None:
    job(namespace)
    found = aurl("logs", "bach", "-n", namespace)
    assert found.returncode == ExitCode.MISSING, found.stderr
    assert found.stderr.count("\n") == 1, found.stderr


def test_an_api_server_that_does_not_answer_is_said_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    body = {"apiVersion": "v1", "kind": "Config", "current-context": "c"}
    lists = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
    config.write_text(json.dumps({**body, **lists}))
    found = aurl("status", "bach", "--cluster", KUBECONFIG=str(config))
    assert found.returncode == ExitCode.MISSING, found.stderr
    assert "report it" not in found.stderr


def test_torchx_submits_describes_lists_and_cancels(namespace: str, tmp_path: Path) -> None:
    with Kubelet(namespace), OperatorProcess(namespace, tmp_path / "log"), get_runner() as runner:
        app = train("quick_test", name="bach", image="x", j="1x1", checkpoint="s3://b/bach")
        app.roles[0].metadata["aurl.dev/spec"]["template"] = {"spec": {"schedulerName": "nobody"}}
        handle = runner.run(app, "aurl", cfg={"namespace": namespace})
        assert handle.endswith(f"{namespace}:bach")

        def running() -> bool:
            found = runner.status(handle)
            return found is not None and found.state is AppState.RUNNING

        eventually("it runs", running)
        described = runner.describe(handle)
        assert described is not None
        assert [role.name for role in described.roles] == ["trainer"]
        assert f"{namespace}:bach" in [found.app_id for found in runner.list("aurl")]
        runner.cancel(handle)
        names = ("get", "atj", "-o", "name")
        eventually("it is gone", lambda: not kubectl("-n", namespace, *names).stdout.strip())
        assert runner.status(handle) is None
