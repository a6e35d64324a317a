"""A run's directory: who may use it, and what the supervisor keeps there.

Here: the lock (one `aurl run` at a time), the refusal of a run of another config, state.json (replaced
atomically) and ledger.jsonl (appended, each entry once).
Not here: what the state means (`core/`), and what ranks write there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from aurl_operator.errors import MissingError, RefusedError
from aurl_trainer.contract import LedgerEntry, RecordError, RunFile

LOCK = ".lock"
FORMAT = 1
"""Version of state.json."""


class RunDir:
    """An opened run directory; hold it as long as the run lives and `close` it.

    Use `RunDir.open`. `state` is what state.json holds, by name; change it and `save`.
    """

    def __init__(self, path: Path, lock: int, state: dict[str, Any]) -> None:
        self.path = path
        self.lock = lock
        self.state = state
        self._booked = {(e.kind, e.id) for e in read_ledger(path)}

    @classmethod
    def open(
        cls,
        path: Path,
        identity: Mapping[str, Any],
        wait: Callable[[str], None] = lambda _: None,
        seconds: float = 90.0,
    ) -> RunDir:
        """The directory at `path`, made if it is not there, locked for this process.

        `identity` is what all starts of one run share. While the processes of a killed run are still being
        swept, `wait` is told once and the lock is tried for `seconds`. Raises RefusedError if another
        `aurl run` lives there, if the run there has another identity and has trained, or if it is no run's
        directory.
        """
        path = path.resolve()
        if path.exists() and not path.is_dir():
            raise RefusedError(f"{path} is not a directory; choose another with --run-dir")
        if path.is_dir() and any(path.iterdir()) and not (path / LOCK).exists():
            raise RefusedError(f"{path} holds files that are no run's; choose another with --run-dir")
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise MissingError(f"{path} cannot be written: {error.strerror}") from None
        try:
            _acquire(lock, path, wait, seconds)
            state = read_state(path)
            if state is None:
                state = {"format": FORMAT, "run": uuid.uuid4().hex[:12], "identity": dict(identity)}
            changed = differences(state["identity"], identity)
            if changed and _failed_before_training(path, state):
                state["identity"], changed = dict(identity), []
            if changed:
                raise RefusedError(
                    f"{path} holds a run of another config; choose another with --run-dir. Differing:\n"
                    + "\n".join(changed)
                )
            _mend(path / RunFile.LEDGER)
        except BaseException:
            os.close(lock)
            raise
        for folder in (RunFile.LOGS, RunFile.RECORDS):
            (path / folder).mkdir(exist_ok=True)
        return cls(path, lock, state)

    @property
    def run_id(self) -> str:
        """Identity of the run, the same for all its starts."""
        return str(self.state["run"])

    def save(self) -> None:
        """Replaces state.json."""
        write_atomically(self.path / RunFile.STATE, json.dumps(self.state, indent=1))

    def book(self, entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
        """Appends to the ledger what it does not hold yet, by kind and id: all of it or, with OSError, none.

        Returns what was new.
        """
        fresh = [e for e in entries if (e.kind, e.id) not in self._booked]
        if fresh:
            with (self.path / RunFile.LEDGER).open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    left = b"".join(entry.to_json().encode() + b"\n" for entry in fresh)
                    while left:  # a disk that fills up takes a part first, and refuses the rest
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)
                    raise
            self._booked |= {(e.kind, e.id) for e in fresh}
        return fresh

    def close(self) -> None:
        """Gives the lock back (the guard, if it lives, keeps it until it has swept)."""
        os.close(self.lock)


def _failed_before_training(path: Path, state: Mapping[str, Any]) -> bool:
    """Whether a run ended Failed before any rank trained: then the job may be mended in place."""
    failed = state.get("status", {}).get("phase") == "Failed"
    records = path / RunFile.RECORDS
    trained = records.is_dir() and any(records.iterdir())
    return failed and not trained and "training" in state["identity"].get("spec", {})


def _acquire(lock: int, path: Path, wait: Callable[[str], None], seconds: float) -> None:
    deadline, told = time.monotonic() + seconds, False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
            if _lives(holder) or time.monotonic() > deadline:
                raise RefusedError(
                    f"{path} is in use by `aurl run` (process {holder}); see: aurl status {path}"
                ) from None
            if not told:
                wait("waiting for the processes of a killed run to end")
                told = True
            time.sleep(0.1)
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            return


def _lives(pid: str) -> bool:
    """Whether the lock's holder is a living process; the guard of a dead one is not the holder."""
    if not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def held(path: Path) -> bool:
    """Whether an `aurl run`, or the guard that sweeps after one, holds the directory's lock."""
    try:
        probe = os.open(path / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(probe)
    return False


def read_state(path: Path) -> dict[str, Any] | None:
    """What state.json holds; None if there is none. Raises RefusedError if it is of another Aurl."""
    try:
        raw = json.loads((path / RunFile.STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path / RunFile.STATE} cannot be read: {error}") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise RefusedError(f"{path / RunFile.STATE} was written by another version of Aurl")
    return raw


def read_ledger(path: Path) -> list[LedgerEntry]:
    """The run's ledger in order, without lines that this version cannot read."""
    entries = []
    try:
        lines = (path / RunFile.LEDGER).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        with contextlib.suppress(RecordError):
            entries.append(LedgerEntry.from_json(line))
    return entries


def write_atomically(path: Path, text: str) -> None:
    """Replaces the file: whoever reads it, at any moment, finds the old text or the new one, whole."""
    draft = path.with_name(f".{path.name}.new")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per leaf that differs, as in `training.seed: 1 there, 2 here`."""
    left, right = dict(_leaves(old)), dict(_leaves(new))
    names = [n for n in {**left, **right} if (n in left, left.get(n)) != (n in right, right.get(n))]
    return [f"{n}: {_show(left, n)} there, {_show(right, n)} here" for n in names]


def _leaves(value: Any, at: str = "") -> Iterable[tuple[str, Any]]:
    children: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    if not children or not value:
        yield at, value
    for key, child in children:
        yield from _leaves(child, f"{at}.{key}" if at else str(key))


def _show(leaves: Mapping[str, Any], name: str) -> str:
    return json.dumps(leaves[name]) if name in leaves else "nothing"


def _mend(ledger: Path) -> None:
    """Ends a line that a kill left torn, so that the next entry has a line of its own."""
    if ledger.exists() and (text := ledger.read_bytes()) and not text.endswith(b"\n"):
        with ledger.open("ab") as file:
            file.write(b"\n")
