"""An etcd and an API server of the tests' own, from the programs in KUBEBUILDER_ASSETS (as in envtest).

No scheduler, no controllers, no machines: the API-server tests need no more. Everything listens on
127.0.0.1 and is gone, with its data, when the tests end.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

READY_SECONDS = 60.0


@contextlib.contextmanager
def control_plane(assets: Path, folder: Path) -> Iterator[Path]:
    """Runs both while entered; gives the kubeconfig of an administrator. `folder` takes data and logs."""
    client, peer, secure = _free_ports(3)
    token = secrets.token_hex(16)
    (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    subprocess.run(
        ["openssl", "genrsa", "-out", str(folder / "sa.key"), "2048"], check=True, capture_output=True
    )
    etcd = [
        str(assets / "etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
        "--unsafe-no-fsync",
        "--log-level=error",
    ]
    apiserver = [
        str(assets / "kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{client}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={secure}",
        f"--cert-dir={folder / 'certificates'}",
        "--service-cluster-ip-range=10.0.0.0/24",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'sa.key'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        # Nobody makes the service accounts that it would ask for.
        "--disable-admission-plugins=ServiceAccount",
    ]
    with _running(etcd, folder / "etcd.log"), _running(apiserver, folder / "apiserver.log") as process:
        authority = folder / "certificates" / "apiserver.crt"
        config = _kubeconfig(folder / "kubeconfig", f"https://127.0.0.1:{secure}", authority, token)
        _wait_ready(assets, config, process, folder / "apiserver.log")
        yield config


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@contextlib.contextmanager
def _running(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def _kubeconfig(path: Path, server: str, authority: Path, token: str) -> Path:
    name = "tests"
    cluster = {"server": server, "certificate-authority": str(authority)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return path


def _wait_ready(assets: Path, config: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    argv = [str(assets / "kubectl"), "--kubeconfig", str(config), "get", "--raw", "/readyz"]
    while time.monotonic() < end and process.poll() is None:
        if subprocess.run(argv, capture_output=True, check=False).stdout == b"ok":
            return
        time.sleep(0.5)
    raise AssertionError(f"the API server is not ready:\n{log.read_text()[-2000:]}")
