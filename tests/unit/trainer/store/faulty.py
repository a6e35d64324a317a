"""An in-memory file system that fails, or dies, at a chosen operation: how stores misbehave, on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from aurl_trainer.store.location.disk import PARTIAL

PROTOCOL = "faulty"


class Died(BaseException):
    """The process is gone at this instant: nothing may catch it."""


class FaultyFileSystem(MemoryFileSystem):
    """Counts what changes the store (write, delete); `fault` is asked before each and may raise."""

    protocol = PROTOCOL
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    fault: ClassVar[Callable[[int, str, str], None] | None] = None
    operations: ClassVar[int] = 0
    halves: ClassVar[bool] = False

    @classmethod
    def reset(cls, fault: Callable[[int, str, str], None] | None = None, *, halves: bool = False) -> None:
        """Starts counting at zero; the objects stay.

        With `halves` there is one more fault in the middle of each put, when half of it is written (a pack
        under its name, anything else under that of a partial file, as on a local disk), and one after each
        delete.
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

    @classmethod
    def clear(cls) -> None:
        """An empty store without faults."""
        cls.reset()
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).replace("faulty://", "memory://", 1))

    def _operation(self, kind: str, path: str) -> None:
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
        self._operation("answer", path)

    def _half(self, path: str, value: bytes) -> None:
        folder, _, name = path.rpartition("/")
        half = path if path.endswith(".pack") else f"{folder}/.{name}{PARTIAL}"
        super().pipe_file(half, value[: len(value) // 2])
        self._operation("half a put", path)
        super()._rm(half)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if "r" in mode:
            return super()._open(path, mode=mode, **kwargs)
        # One fault before anything is there, one with half an object, one with all of it.
        self._operation("create", path)
        file = super()._open(path, mode=mode, **kwargs)
        assert isinstance(file, MemoryFile)
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
        if FaultyFileSystem.halves:
            self._operation("answer to delete", path)


fsspec.register_implementation(PROTOCOL, FaultyFileSystem, clobber=True)
