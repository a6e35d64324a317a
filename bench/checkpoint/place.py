"""Where is saved: a folder, or a bucket on the S3 server of AWS_ENDPOINT_URL, or of a moto started here."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator

import fsspec

PATIENCE = 60.0


@contextlib.contextmanager
def place(kind: str) -> Iterator[tuple[str, str]]:
    """The URL of an empty place of that kind ("file" or "s3"), and a word on what serves it."""
    if kind == "file":
        with tempfile.TemporaryDirectory() as folder:
            yield folder, "a local disk"
        return
    with contextlib.ExitStack() as stack:
        server = os.environ.get("AWS_ENDPOINT_URL")
        if server is None:
            server = stack.enter_context(_moto())
            # Read by s3fs in this process and in those that it starts.
            os.environ.update(
                AWS_ENDPOINT_URL=server, AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench"
            )
        bucket = f"aurl-bench-{uuid.uuid4().hex[:8]}"
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdir(bucket)
        stack.callback(lambda: files.rm(bucket, recursive=True))
        yield f"s3://{bucket}", server


@contextlib.contextmanager
def _moto() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                break
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("no S3 server: set AWS_ENDPOINT_URL, or install moto[server]")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
