"""A large object on its way to a remote store: block by block, with bounded memory and a deadline.

Not here: small objects, which are one put (place.py); files on local disks (disk.py).
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable
from typing import Any

BLOCK_BYTES = 16 * 2**20
"""What one stream holds in memory, twice at most: the block being filled and the one being sent.

S3 takes up to 10,000 of them for an object. Blocks of 32 MiB cost more: glibc asks the system for each anew,
which takes longer than the copy into it.
"""

BLOCK_SECONDS = 300.0
"""For one block with all the client's tries, where no deadline is nearer."""

CLEANUP_SECONDS = 10.0


class Upload(io.RawIOBase):
    """A file to write into. What fits into one block goes as one `put`; more becomes a stream from `open_`.

    `deadline` is by time.monotonic; beyond it every call raises TimeoutError.
    """

    def __init__(
        self, put: Callable[[bytes], None], open_: Callable[[], Any], deadline: float | None = None
    ) -> None:
        self._put = put
        self._open = open_
        self._deadline = deadline
        self._buffer = bytearray()
        self._file: Any = None

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """Takes all of `data`, bytes or a buffer of them."""
        view = memoryview(data).cast("B")
        at = 0
        while at < view.nbytes:
            if len(self._buffer) == BLOCK_BYTES:
                self._send()
            part = view[at : at + BLOCK_BYTES - len(self._buffer)]
            self._buffer += part
            at += part.nbytes
        return view.nbytes

    def finish(self) -> None:
        """The object is there and durable on return."""
        if self._file is None:
            self._put(bytes(self._buffer))
            return
        if self._buffer:
            self._send()
        self._run(self._file.close)

    def abandon(self) -> None:
        """Gives up: what was sent is freed where the store shows it only in the end, and nothing finishes it
        later. What is there under the name stays: it may be another's."""
        self._buffer = bytearray()
        file, self._file = self._file, None
        if file is None:
            return

        def clean() -> None:
            with contextlib.suppress(Exception):
                file.discard()  # aborts a multipart upload
            with contextlib.suppress(AttributeError):
                file.closed = True  # else its finalizer would finish the upload

        with contextlib.suppress(TimeoutError):
            within(CLEANUP_SECONDS, clean)

    def _send(self) -> None:
        block, self._buffer = self._buffer, bytearray()
        if self._file is None:
            self._file = self._run(self._open)
        self._run(lambda: self._file.write(block))

    def _run(self, act: Callable[[], Any]) -> Any:
        left = BLOCK_SECONDS
        if self._deadline is not None:
            left = min(left, self._deadline - time.monotonic())
        return within(left, act)


def within(seconds: float, act: Callable[[], Any]) -> Any:
    """What `act` returns or raises. Raises TimeoutError after `seconds`, leaving it behind in its thread."""
    if seconds <= 0:
        raise TimeoutError("the deadline has passed")
    done: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(act())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True, name="upload")
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return done[0]
