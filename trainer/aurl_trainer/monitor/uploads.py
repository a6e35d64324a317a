"""In a pod, whose disk goes with it: records, samples and the tail of the log, kept beside the checkpoints.

A thread looks for what has changed every few seconds. A file that has is sent whole: records are in parts of
bounded size (record_files.py), of a log goes its end. What cannot be sent is said once, tried again with the
next look, and never fails training. Locally the run directory has it all already. Not here: checkpoints
(store/, checkpoint/).
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from aurl_trainer.contract import Env, RunFile
from aurl_trainer.errors import AurlTrainerError
from aurl_trainer.store.location.place import Location

log = logging.getLogger(__name__)

SECONDS = 2.0
"""Between looks for changes."""

LAST_SECONDS = 10.0
"""What the last upload may take when the run ends."""

TAIL_BYTES = 2**20
"""What is kept of a node's logs: the end of all together."""


class Uploads:
    """Keeps the run's small files beside its checkpoints while it is entered."""

    def __init__(self, location: Location, run_dir: Path, log_name: str) -> None:
        self._location, self._run_dir, self._log_name = location, run_dir, log_name
        self._sizes: dict[Path, int] = {}
        self._over = threading.Event()
        self._said = False
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)

    def __enter__(self) -> Uploads:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(LAST_SECONDS)

    def _run(self) -> None:
        while not self._over.wait(SECONDS):
            self.look()
        self.look()

    def look(self) -> None:
        """Sends what has changed since it was last sent. Never raises for what cannot be read or sent."""
        for folder in (RunFile.RECORDS, RunFile.SAMPLES):
            for path in sorted((self._run_dir / folder).rglob("*")):
                with self._saying():
                    if path.is_file():
                        self._send(str(path.relative_to(self._run_dir)), [path], path.read_bytes)
        with self._saying():
            logs = sorted((self._run_dir / RunFile.LOGS).rglob("*.log"), key=lambda p: p.stat().st_mtime)
            self._send(f"{RunFile.LOGS}/{self._log_name}.log", logs, lambda: _tail(logs))

    def _send(self, name: str, paths: list[Path], data: Callable[[], bytes]) -> None:
        """Puts an object made of `paths`, if one of them has another size than when it was last put."""
        sizes = {path: path.stat().st_size for path in paths}
        if not sizes.items() <= self._sizes.items():
            self._location.put(name, data())
            self._sizes |= sizes  # only now: what could not be put is put the next time

    @contextlib.contextmanager
    def _saying(self) -> Iterator[None]:
        """Errors are told, the first of all, and go no further."""
        try:
            yield
        except (AurlTrainerError, OSError) as error:
            if not self._said:
                log.warning("records are not kept beside the checkpoints: %s", error)
            self._said = True


def _tail(logs: list[Path]) -> bytes:
    """The last TAIL_BYTES of all logs together, oldest first."""
    tail = b""
    for path in reversed(logs):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - (TAIL_BYTES - len(tail)), 0))
            tail = file.read(TAIL_BYTES - len(tail)) + tail
    return tail


def uploading(uri: str | None, run_dir: Path, run: str) -> Uploads | None:
    """The uploads of this node of the run `run`, None where nothing is to be uploaded.

    Logs lie under the run's id: one that is refused at another's place has a worker-0, too.
    """
    if os.environ.get(Env.UPLOAD) != "1" or uri is None:
        return None
    node = f"{os.environ.get(Env.NODE, 'node')}-{os.environ.get(Env.ATTEMPT, '0')}"
    return Uploads(Location(uri), run_dir, f"{run}/{node}")
