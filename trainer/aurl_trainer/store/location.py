"""One place on any fsspec store, and the few operations that checkpoints need there.

Objects are named by paths below the place, as in `manifests/x.json`. `put` is all or nothing: on local disks
a temporary file, fsync, rename and fsync of the folder; elsewhere a single put. Every error of a file system
becomes a CheckpointError of one line, except a missing object, which is a FileNotFoundError.
Not here: what the objects are.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import logging
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from aurl_trainer.errors import CheckpointError

PARTIAL = ".partial"
"""How the name of a file ends that is not whole yet; it begins with a dot. `names` does not see it."""


def shown(uri: str) -> str:
    """`uri`, or a text with some in it, without the user and password that some protocols carry."""
    return re.sub(r"//[^/@:\s]*:[^/@\s]*@", "//***@", uri)


def reason(error: BaseException) -> str:
    """One line on why a file system refused."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        code = errno.errorcode.get(error.errno, "")
        return "no space is left there" if code == "ENOSPC" else error.strerror
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


class Location:
    """A folder on a store. `uri` is any fsspec URL or a plain path.

    Raises CheckpointError for an unknown protocol, or one whose package is not installed.
    """

    def __init__(self, uri: str, filesystem: Any = None) -> None:
        self.uri = shown(uri)
        for library in ("gcsfs", "s3fs", "adlfs"):
            # They log tracebacks of errors that they raise as well; here these become one line.
            if logging.getLogger(library).level == logging.NOTSET:
                logging.getLogger(library).setLevel(logging.CRITICAL)
        if uri.startswith(("gs://", "gcs://")):
            # gcsfs else asks for each bucket's layout first, and waits a minute on stores that do not answer.
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        try:
            # Another process may write here at any time: neither old listings nor shared instances will do.
            self.fs, root = (
                fsspec.core.url_to_fs(uri, use_listings_cache=False, skip_instance_cache=True)
                if filesystem is None
                else (filesystem, filesystem._strip_protocol(uri))
            )
        except ImportError as error:
            raise CheckpointError(f"{self.uri}: a package for this protocol is missing: {error}") from None
        except Exception as error:
            raise CheckpointError(f"{self.uri}: not a place for checkpoints: {reason(error)}") from None
        self.root = str(root).rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """The file system's own path of the object `name`."""
        return f"{self.root}/{name}"

    def below(self, folder: str) -> Location:
        """The place of a folder inside this one."""
        inside = copy.copy(self)
        inside.uri, inside.root = f"{self.uri.rstrip('/')}/{folder}", self.path(folder)
        return inside

    @contextlib.contextmanager
    def _errors(self, doing: str, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except CheckpointError:
            raise
        except Exception as error:
            where = f"{self.uri}/{name}" if name else self.uri
            raise CheckpointError(f"{where}: cannot be {doing}: {reason(error)}") from error

    # -- writing ----------------------------------------------------------------------------------------

    def put(self, name: str, data: bytes) -> None:
        """Writes a small object, whole or not at all; durable on return."""
        with self._errors("written", name):
            try:
                if self.local:
                    self._put_file(Path(self.path(name)), data)
                else:
                    self.fs.pipe_file(self.path(name), data)
            except FileNotFoundError as error:  # a bucket that is not there
                raise CheckpointError(f"{self.uri}/{name}: cannot be written: {reason(error)}") from error

    def _put_file(self, path: Path, data: bytes) -> None:
        _make_folder(path.parent)
        partial = path.with_name(f".{path.name}{PARTIAL}")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file to stream a large object into; durable when the block ends.

        It is not atomic: nothing may refer to the object before the block has ended well. What an error
        leaves behind is removed where that is possible.
        """
        with self._errors("written", name):
            try:
                if self.local:
                    with self._writing_file(Path(self.path(name))) as file:
                        yield file
                else:
                    with self._writing_remote(self.path(name)) as file:
                        yield file
            except FileNotFoundError as error:
                raise CheckpointError(f"{self.uri}/{name}: cannot be written: {reason(error)}") from error

    @contextlib.contextmanager
    def _writing_file(self, path: Path) -> Iterator[BinaryIO]:
        _make_folder(path.parent)
        try:
            with path.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def _writing_remote(self, path: str) -> Iterator[BinaryIO]:
        file = self.fs.open(path, "wb")
        try:
            yield cast(BinaryIO, file)
            file.close()
        except BaseException:
            with contextlib.suppress(Exception):
                file.discard()  # aborts a multipart upload
            with contextlib.suppress(AttributeError):
                file.closed = True  # else its finalizer would finish the upload
            with contextlib.suppress(Exception):
                self.fs.rm_file(path)
            raise

    # -- reading ----------------------------------------------------------------------------------------

    def get(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """The object's bytes, or those in [start, end). Raises FileNotFoundError when it is not there."""
        with self._errors("read", name):
            return bytes(self.fs.cat_file(self.path(name), start=start, end=end))

    def size(self, name: str) -> int:
        """Size in bytes. Raises FileNotFoundError when it is not there."""
        with self._errors("read", name):
            return int(self.fs.info(self.path(name))["size"])

    def names(self, folder: str) -> list[str]:
        """Names of the objects in `folder` and below, relative to it, sorted; none when it is not there."""
        return [n for n in self._all(folder) if not n.rpartition("/")[2].startswith(".")]

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder`, sorted; none when it is not there."""
        return sorted(name for name, is_folder in self._entries(folder) if is_folder)

    def partials(self, folder: str) -> list[str]:
        """Names in `folder` of files that an interrupted `put` left behind."""
        names = [(n, n.rpartition("/")[2]) for n in self._all(folder)]
        return [n for n, last in names if last.startswith(".") and last.endswith(PARTIAL)]

    def _all(self, folder: str) -> list[str]:
        found = []
        for name, is_folder in self._entries(folder):
            inside = self._all(f"{folder}/{name}".lstrip("/")) if is_folder else []
            found += [f"{name}/{n}" for n in inside] if is_folder else [name]
        return sorted(found)

    def _entries(self, folder: str) -> list[tuple[str, bool]]:
        """Names directly in `folder`, and whether each is a folder."""
        base = self.path(folder).rstrip("/")
        # Not find(): on some stores it passes over what cannot be listed, and a fence must not be missed.
        with self._errors("listed", folder):
            try:
                found = self.fs.ls(base, detail=True)
            except FileNotFoundError:
                return []
        prefix = f"{base.lstrip('/')}/"
        paths = [(str(f["name"]).strip("/"), f["type"] == "directory") for f in found]
        return [(p.removeprefix(prefix), d) for p, d in paths if p.startswith(prefix)]

    # -- removing ---------------------------------------------------------------------------------------

    def delete(self, names: list[str]) -> None:
        """Removes objects; those already gone are no error. On local disks, durable on return."""
        folders = set()
        for name in names:
            with self._errors("deleted", name), contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(self.path(name))
                folders.add(Path(self.path(name)).parent)
        if self.local:
            for folder in folders:
                with contextlib.suppress(OSError):
                    _sync_folder(folder)

    def delete_folder(self, folder: str) -> None:
        """Removes a folder with all that is in it."""
        inside = [f"{folder}/{n}" for n in self._all(folder)]
        self.delete(inside)
        if self.local:
            with contextlib.suppress(OSError):
                Path(self.path(folder)).rmdir()

    # -- trying -----------------------------------------------------------------------------------------

    def write_probe(self) -> str:
        """Writes a probe and returns its name. Raises CheckpointError: the place cannot be written."""
        name = f"probe-{secrets.token_hex(8)}"
        self.put(name, name.encode())
        return name

    def read_probe(self, name: str) -> None:
        """Raises CheckpointError unless the probe can be read from here."""
        try:
            found = self.get(name)
        except FileNotFoundError:
            raise CheckpointError(
                f"{self.uri}: what one node writes there another does not see; "
                "checkpoint.uri must name storage that all nodes share"
            ) from None
        if found != name.encode():
            raise CheckpointError(f"{self.uri}: gives back other bytes than were written")


def _make_folder(folder: Path) -> None:
    """Makes a folder and those above it, durably."""
    missing = []
    at = folder
    while not at.exists():
        missing.append(at)
        at = at.parent
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        _sync_folder(made.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
