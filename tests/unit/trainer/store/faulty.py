"""An in-memory file system that fails, dies, or lists late, on demand: how stores misbehave."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from aurl_trainer.store.location.disk import PARTIAL

PROTOCOL = "faulty"


class Died(BaseException):
    """The process is gone at this instant: nothing may catch it."""


class FaultyFileSystem(MemoryFileSystem):
    """Counts what changes the store (write, delete); `fault` is asked before each and may raise. What is read
    goes through `reading`.

    With a `lag` listings show what was there so many operations ago, listings included: new objects are not
    in them yet, deleted ones still are. Reads by name are never late, as on stores that list so.
    """

    protocol = PROTOCOL
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    fault: ClassVar[Callable[[int, str, str], None] | None] = None
    reading: ClassVar[Callable[[str, bytes], bytes] | None] = None
    """What comes of each read, given the path and what is there; it may raise."""
    operations: ClassVar[int] = 0
    counting: ClassVar[threading.Lock] = threading.Lock()
    halves: ClassVar[bool] = False
    lag: ClassVar[int] = 0
    history: ClassVar[list[tuple[int, str, bool]]] = []
    """What came (True) and went since the objects were put there, each with the time of all operations."""
    time: ClassVar[int] = 0

    @classmethod
    def reset(cls, fault: Callable[[int, str, str], None] | None = None, *, halves: bool = False) -> None:
        """Starts counting at zero; the objects stay.

        With `halves` there is one more fault in the middle of each put, when half of it is written (a pack
        under its name, as where stores show halves, anything else under that of a partial file, as on a local
        disk), and one after each delete.
        """
        cls.fault = None if fault is None else staticmethod(fault)
        cls.operations = 0
        cls.halves = halves

    @classmethod
    def snapshot(cls) -> dict[str, bytes]:
        """All objects."""
        return {path: file.getvalue() for path, file in cls.store.items()}

    @classmethod
    def restore(cls, objects: dict[str, bytes]) -> None:
        """These objects and no others, and no faults."""
        cls.clear()
        for path, data in objects.items():
            cls.store[path] = MemoryFile(cls(), path, data)
        cls.history = [(-(10**9), path, True) for path in objects]

    @classmethod
    def clear(cls) -> None:
        """An empty store without faults."""
        cls.reset()
        cls.reading = None
        cls.history = []
        cls.lag = cls.time = 0
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]

    @classmethod
    def grow_old(cls, seconds: float) -> None:
        """All objects were put there so much earlier."""
        for file in cls.store.values():
            file.created -= timedelta(seconds=seconds)

    @classmethod
    @contextlib.contextmanager
    def listing_at_once(cls) -> Iterator[None]:
        """Without the lag."""
        lag, cls.lag = cls.lag, 0
        try:
            yield
        finally:
            cls.lag = lag

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).replace("faulty://", "memory://", 1))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        FaultyFileSystem.time += 1
        if not FaultyFileSystem.lag:
            return super().ls(path, detail=detail, **kwargs)
        seen: dict[str, bool] = {}
        for at, changed, there in FaultyFileSystem.history:
            if at <= FaultyFileSystem.time - FaultyFileSystem.lag:
                seen[changed] = there
        top = f"{self._strip_protocol(path)}/"
        inside = [p.removeprefix(top) for p, there in seen.items() if there and p.startswith(top)]
        if not inside:
            raise FileNotFoundError(path)
        kinds = {name.partition("/")[0]: "directory" if "/" in name else "file" for name in inside}
        entries = [{"name": f"{top}{name}", "size": 0, "type": kind} for name, kind in kinds.items()]
        return entries if detail else [entry["name"] for entry in entries]

    def _changed(self, path: str, there: bool) -> None:
        with FaultyFileSystem.counting:
            FaultyFileSystem.time += 1
            FaultyFileSystem.history.append((FaultyFileSystem.time, self._strip_protocol(path), there))

    def _operation(self, kind: str, path: str) -> None:
        with FaultyFileSystem.counting:
            number = FaultyFileSystem.operations
            FaultyFileSystem.operations += 1
        if FaultyFileSystem.fault is not None:
            FaultyFileSystem.fault(number, kind, path)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """One put: all or nothing; or all, and then no answer."""
        self._operation("put", path)
        if FaultyFileSystem.halves:
            self._half(path, value)
        super().pipe_file(path, value, mode=mode, **kwargs)
        self._changed(path, True)
        self._operation("answer", path)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        data = bytes(super().cat_file(path, start=start, end=end, **kwargs))
        reading = FaultyFileSystem.reading
        return data if reading is None else reading(self._strip_protocol(path), data)

    def _half(self, path: str, value: bytes) -> None:
        folder, _, name = path.rpartition("/")
        half = path if path.endswith(".pack") else f"{folder}/.{name}.0123abcd{PARTIAL}"
        super().pipe_file(half, value[: len(value) // 2])
        self._changed(half, True)
        self._operation("half a put", path)
        super()._rm(half)
        self._changed(half, False)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if "r" in mode:
            return super()._open(path, mode=mode, **kwargs)
        # One fault before anything is there, one with half an object, one with all of it.
        self._operation("create", path)
        file = super()._open(path, mode=mode, **kwargs)
        assert isinstance(file, MemoryFile)
        self._changed(path, True)
        write = file.write

        def writing(data: Any) -> int:
            half = len(data) // 2
            write(data[:half])
            self._operation("write", path)
            return half + write(data[half:])

        file.write = writing
        return file

    def _rm(self, path: str) -> None:
        self._operation("delete", path)
        super()._rm(path)
        self._changed(path, False)
        if FaultyFileSystem.halves:
            self._operation("answer to delete", path)


fsspec.register_implementation(PROTOCOL, FaultyFileSystem, clobber=True)
