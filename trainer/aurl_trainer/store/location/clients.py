"""What each store's own client is told (no retries of its own, bounded waits), and how it tells things.

Location tries again by itself, with one deadline over all; a client that did so as well would multiply the
tries. The exception are streams: a part of one that failed cannot be asked for again from here, so there the
client tries again, and Location does not.
Not here: the operations (place.py).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aurl_trainer.store.location.disk import Disk, local_path

CONNECT_SECONDS = 10
READ_SECONDS = 60
"""How long a server may be silent within one answer."""

STREAM_TRIES = 6
"""For one part of a stream."""

_TIMES = ("LastModified", "mtime", "last_modified", "created")
"""What file systems call the time of the last writing: of S3, local and GCS, Azure, memory."""


def open_store(uri: str, *, stream: bool = False) -> tuple[Any, str]:
    """A file system of its own for `uri`, and the path there. `stream`: with the client's own retries.

    Raises whatever fsspec raises for a protocol that it does not know or whose package is missing.
    """
    if (path := local_path(uri)) is not None:
        return Disk(), path
    import fsspec

    for library in ("gcsfs", "s3fs", "adlfs", "azure", "botocore"):
        # They log tracebacks of errors that they raise as well; here these become one line.
        if logging.getLogger(library).level == logging.NOTSET:
            logging.getLogger(library).setLevel(logging.CRITICAL)
    protocol = uri.partition("://")[0]
    # Another process may write here at any time: neither old listings nor shared instances will do.
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if protocol in ("s3", "s3a"):
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"mode": "standard", "total_max_attempts": STREAM_TRIES if stream else 1},
        }
    elif protocol in ("gs", "gcs"):
        # gcsfs else asks for each bucket's layout first, and waits a minute on stores that do not answer.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        # Where no metadata server is, each look for one is a wait of so many seconds.
        os.environ.setdefault("GCE_METADATA_TIMEOUT", "1")
        if not os.environ.get("STORAGE_EMULATOR_HOST") and not _configured("gs", "gcs", option="token"):
            # Else gcsfs looks for credentials in four ways, and at last sends requests without any.
            options["token"] = "google_default"
        options["requests_timeout"] = _aiohttp_timeout()
    elif protocol in ("az", "abfs", "abfss", "adl"):
        options |= {"connection_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
    fs, root = fsspec.core.url_to_fs(uri, **options)
    if protocol in ("s3", "s3a"):
        fs.retries = 1
        if stream:
            fs.connect()  # else several threads would each make a client of their own for it
    elif protocol in ("gs", "gcs") and not stream:
        _without_retries(fs)
    elif protocol in ("az", "abfs", "abfss", "adl") and not stream:
        fs.service_client._config.retry_policy.total_retries = 0
    return fs, str(root)


def taken_at(info: Mapping[str, Any]) -> float | None:
    """When the store took an object, seconds since the epoch, of what its file system says of it.

    None where that does not tell.
    """
    found = next((at for key in _TIMES if (at := info.get(key)) is not None), None)
    if isinstance(found, datetime):
        return found.timestamp()
    return float(found) if isinstance(found, int | float) else None


def is_local(fs: Any) -> bool:
    """Whether `fs` is this machine's own disks."""
    if isinstance(fs, Disk):
        return True
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def is_async(fs: Any) -> bool:
    """Whether its operations are coroutines, so that each can be given a time; a wrapper is what it wraps."""
    return bool(fs.async_impl and getattr(fs, "fs", fs).async_impl)


def _configured(*protocols: str, option: str) -> bool:
    """Whether fsspec's own configuration (its files, or FSSPEC_GCS_TOKEN and the like) sets an option."""
    import fsspec

    return any(option in fsspec.config.conf.get(protocol, {}) for protocol in protocols)


def _aiohttp_timeout() -> Any:
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)


def _without_retries(fs: Any) -> None:
    """gcsfs decorates its one request function with six tries and has no option for it."""
    once = type(fs)._request.__wrapped__
    fs._request = once.__get__(fs)


class Streaming:
    """The file system for streams, made when it is first needed: a client takes long to make."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._fs: Any = None

    def get(self) -> Any:
        """The same for all threads."""
        with self._lock:
            if self._fs is None:
                self._fs = open_store(self._uri, stream=True)[0]
            return self._fs
