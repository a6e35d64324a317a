"""One place on any fsspec store, and the few operations that checkpoints need there.

Objects are named by paths below the place, as in `manifests/x.json`. `put` is all or nothing. Every operation
is tried again while the store only fails for the moment, with exponential backoff and full jitter, up to a
number of tries and a deadline. Every error of a file system becomes a CheckpointError of one line that says
what to do, except a missing object, which is a FileNotFoundError. One that says that this object alone cannot
be read is a DamagedError.

Listings may lag behind what was written, by seconds, as long as they never go back: see `publish`.

A Location may be used by many threads at once. It does not survive a fork: make one in each process.
Not here: what the objects are.
"""

from __future__ import annotations

import contextlib
import copy
import math
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from aurl_trainer.errors import CheckpointError, DamagedError, UnavailableError
from aurl_trainer.store.location import disk, multipart
from aurl_trainer.store.location.clients import Streaming, is_async, is_local, open_store, taken_at
from aurl_trainer.store.location.faults import Fault, Kind, is_no_bucket, understand
from aurl_trainer.store.location.multipart import Begun
from aurl_trainer.store.location.patience import Patience
from aurl_trainer.store.location.several import several
from aurl_trainer.store.location.stream import BLOCK_BYTES, Upload

PROBES = "probes"
"""The folder of probes, which are gone again at once."""

LISTING_SECONDS = 60.0
"""How long a listing may lag."""

DELETERS = 8
"""Requests to delete that are under way at a time; few stores delete many objects by one and tell of each."""

LOOKS = (0.01, 1.0)
"""Seconds between two looks whether a listing shows what was written: the first, and the longest."""


def shown(uri: str) -> str:
    """`uri`, or a text with some in it, without the user and password that some protocols carry."""
    return re.sub(r"//[^/:\s]*:[^/\s]*@", "//***@", uri)


_OF_BUCKET = re.compile(r"(s3a?|gc?s|az|abfss?)://[^/]*:[^/]*@")
"""Before the path there is a bucket, or a container and its account: never a user with a password."""


class Location:
    """A folder on a store. `uri` is any fsspec URL or a plain path; `filesystem` serves it if given.

    Raises CheckpointError for an unknown protocol, or one whose package is not installed.
    """

    def __init__(self, uri: str, filesystem: Any = None, patience: Patience | None = None) -> None:
        self.uri = shown(uri)
        self._streaming = Streaming(uri)
        self._given = filesystem is not None
        self._patience = patience or Patience()
        self._deadline: float | None = None
        if _OF_BUCKET.match(uri):
            raise CheckpointError(
                f"{uri.partition('://')[0]}://***: credentials never stand in such a URL; set the store's "
                "variables"
            )
        try:
            if filesystem is None:
                self.fs, root = open_store(uri)
            else:
                self.fs, root = filesystem, filesystem._strip_protocol(uri)
        except ImportError as error:
            raise CheckpointError(f"{self.uri}: a package for this protocol is missing: {error}") from None
        except Exception as error:
            raise CheckpointError(f"{self.uri}: not a place for checkpoints: {understand(error)}") from None
        self.root = str(root).rstrip("/")
        self.local = is_local(self.fs)

    def until(self, deadline: float) -> Location:
        """The same place, whose every operation ends by `deadline` (by time.monotonic), done or failed.

        On local disks the system decides how long an operation takes; no new one begins after the deadline.
        """
        bounded = copy.copy(self)
        bounded._deadline = deadline if self._deadline is None else min(deadline, self._deadline)
        return bounded

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
        except (FileNotFoundError, CheckpointError):
            raise
        except Exception as error:
            raise self._error(doing, name, understand(error), error) from error

    def _error(self, doing: str, name: str, fault: Fault, error: BaseException) -> CheckpointError:
        where = f"{self.uri}/{name}" if name else self.uri
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        kind = UnavailableError if fault.kind is Kind.PASSING else CheckpointError
        return kind(f"{where}: cannot be {doing}: {fault}{notes}")

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Errors of one object's read. Raises DamagedError where the disk fails for this object alone."""
        with self._errors("read", name):
            try:
                yield
            except OSError as error:
                fault = understand(error)
                if fault.kind is not Kind.BROKEN or not self._works():
                    raise
                raise DamagedError(
                    f"{self.uri}/{name}: cannot be read: {fault.text}, while the place itself works"
                ) from error

    def _works(self) -> bool:
        """Whether a small object can be written and read back now."""
        name = f"{PROBES}/{secrets.token_hex(8)}"
        try:
            self.put(name, name.encode())
            try:
                return bytes(self._ask("cat_file", self.path(name))) == name.encode()
            finally:
                self.delete([name])
        except (CheckpointError, OSError):
            return False

    def _ask(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """One operation of the file system, tried again while it only fails for the moment."""

        def act(seconds: float) -> Any:
            if is_async(self.fs):
                from fsspec.asyn import sync

                call = getattr(self.fs, f"_{operation}")
                return sync(self.fs.loop, call, *arguments, timeout=seconds, **options)
            return getattr(self.fs, operation)(*arguments, **options)

        return self._patience.within(self._deadline).persist(act)

    # -- writing ----------------------------------------------------------------------------------------

    def put(self, name: str, data: bytes) -> None:
        """Writes an object that fits into memory, whole or not at all; durable on return.

        After an error it may still arrive: a request that was not answered can take effect later.
        """
        with self._errors("written", name), self._no_bucket(name):
            if self.local:
                self._patience.within(self._deadline).persist(lambda _: disk.put(Path(self.path(name)), data))
            else:
                self._ask("pipe_file", self.path(name), data)

    def publish(self, name: str, data: bytes) -> None:
        """As `put`; on return listings show it, and so all that anybody had written before it.

        Whoever writes so, and lists only then, cannot miss another who did so before. Raises UnavailableError
        when no listing shows it within LISTING_SECONDS; it was written all the same.
        """
        self.put(name, data)
        self._until_listed(name)

    def catch_up(self) -> None:
        """Returns when listings show all that was written before."""
        name = self.write_probe()
        self.delete([name])

    def _until_listed(self, name: str) -> None:
        folder, _, last = name.rpartition("/")
        began = time.monotonic()
        pause, longest = LOOKS
        while last not in (entry for entry, _ in self._entries(folder)):
            now = time.monotonic()
            if now + pause > min(began + LISTING_SECONDS, self._deadline or math.inf):
                raise UnavailableError(
                    f"{self.uri}/{name}: was written, but after {now - began:.0f} s listings do not show it; "
                    "the store must list what was written"
                )
            time.sleep(pause)
            pause = min(1.5 * pause, longest)

    @contextlib.contextmanager
    def _no_bucket(self, name: str) -> Iterator[None]:
        """Where something is written, nothing can be missing but the place itself."""
        try:
            yield
        except FileNotFoundError as error:
            fault = Fault(Kind.NO_BUCKET, understand(error).text)
            raise self._error("written", name, fault, error) from error

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file to stream a large object into; durable when the block ends.

        Nothing may refer to the object before the block has ended well. After an error an object that was
        there before is as it was, and what was sent is freed, wherever the store replaces objects as a whole
        (local disks, S3, GCS, Azure). Elsewhere half an object stays: nothing is removed by its name, which
        another writer may have completed meanwhile. At most 2 * BLOCK_BYTES are held in memory.
        """
        with self._errors("written", name), self._no_bucket(name):
            if self.local:
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    raise TimeoutError("its deadline has passed")
                with disk.writing(Path(self.path(name))) as file:
                    yield file
                return
            upload = Upload(lambda data: self.put(name, data), lambda: self._stream(name), self._deadline)
            try:
                yield cast(BinaryIO, upload)
                upload.finish()
            except BaseException:
                upload.abandon()
                raise

    def _stream(self, name: str) -> Any:
        fs = self.fs if self._given else self._streaming.get()
        return fs.open(self.path(name), "wb", block_size=BLOCK_BYTES)

    # -- reading ----------------------------------------------------------------------------------------

    def get(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """The object's bytes, or those in [start, end). Raises FileNotFoundError when it is not there.

        Raises DamagedError when the disk cannot read it (EIO), while what is written now can be read.
        """
        with self._reading(name):
            return bytes(self._ask("cat_file", self.path(name), start=start, end=end))

    def size(self, name: str) -> int:
        """Size in bytes. Raises FileNotFoundError when it is not there, DamagedError as `get` does."""
        with self._reading(name):
            return int(self._ask("info", self.path(name))["size"])

    def taken_at(self, name: str) -> float | None:
        """When the store took the object, seconds since the epoch by its own clock; None if it does not tell.

        Raises FileNotFoundError when it is not there.
        """
        with self._errors("looked at", name):
            return taken_at(self._ask("info", self.path(name)))

    def now(self) -> float | None:
        """The time by the clock of `taken_at`, seconds since the epoch; None if the store does not tell.

        Writes a probe for that.
        """
        name = f"{PROBES}/{secrets.token_hex(8)}"
        self.put(name, name.encode())
        try:
            return self.taken_at(name)
        finally:
            self.delete([name])

    def names(self, folder: str) -> list[str]:
        """Names of the objects in `folder` and below, relative to it, sorted; none when it is not there."""
        return [n for n in self._all(folder) if not n.rpartition("/")[2].startswith(".")]

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder`, sorted; none when it is not there."""
        return sorted(name for name, is_folder in self._entries(folder) if is_folder)

    def files(self, folder: str) -> list[str]:
        """Names of the objects directly in `folder`, sorted; none when it is not there."""
        return sorted(name for name, is_folder in self._entries(folder) if not is_folder)

    def partials(self, folder: str, quiet: float = 0.0) -> list[str]:
        """Names in `folder` of files that are not whole: a `put` writes them now, or was interrupted.

        `quiet`: only those that were not written to for so many seconds. That is known on local disks, where
        alone such files are; elsewhere it looks for none.
        """
        if quiet and not self.local:
            return []
        found = [n for n in self._all(folder) if disk.whole_name(n.rpartition("/")[2]) is not None]
        if quiet:
            found = [n for n in found if disk.quiet_seconds(Path(self.path(f"{folder}/{n}"))) >= quiet]
        return found

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
                found = self._ask("ls", base, detail=True)
            except FileNotFoundError as error:
                if is_no_bucket(error):
                    raise self._error("listed", folder, understand(error), error) from error
                return []
        prefix = f"{base.lstrip('/')}/"
        paths = [(str(f["name"]).strip("/"), f["type"] == "directory") for f in found]
        return [(p.removeprefix(prefix), d) for p, d in paths if p.startswith(prefix)]

    # -- removing ---------------------------------------------------------------------------------------

    def delete(self, names: list[str]) -> None:
        """Removes objects; those already gone are no error. On local disks, durable on return.

        On other stores several go at a time, in no order: what must go first wants a call of its own. After
        an error no further one begins, and those under way have ended.
        """
        if not self.local:
            several(self._delete, names, DELETERS)
            return
        folders = set()
        for name in names:
            if self._delete(name):
                folders.add(Path(self.path(name)).parent)
        for folder in folders:
            with contextlib.suppress(OSError):
                disk.sync_folder(folder)

    def _delete(self, name: str) -> bool:
        """Whether it was there."""
        with self._errors("deleted", name), contextlib.suppress(FileNotFoundError):
            self._ask("rm_file", self.path(name))
            return True
        return False

    def delete_folder(self, folder: str) -> None:
        """Removes a folder with all that is in it."""
        inside = [f"{folder}/{n}" for n in self._all(folder)]
        self.delete(inside)
        if self.local:
            with contextlib.suppress(OSError):
                Path(self.path(folder)).rmdir()

    def uploads(self, folder: str) -> dict[str, list[Begun]]:
        """Uploads below `folder` that were begun and never ended, by the object's name, where a store keeps
        them for ever. "" is the whole place."""
        if not multipart.has_parts(self.fs):
            return {}
        bucket, _, prefix = f"{self.path(folder).rstrip('/')}/".partition("/")
        root = f"{self.root}/".partition("/")[2]
        found: dict[str, list[Begun]] = {}
        with self._errors("looked through for what killed uploads left", folder):
            for upload in multipart.begun(self._call_s3, bucket, prefix):
                found.setdefault(upload.key.removeprefix(root), []).append(upload)
        return found

    def end_uploads(self, uploads: Iterable[Begun]) -> None:
        """Frees what such uploads hold; those that have ended meanwhile are no error."""
        bucket = self.root.partition("/")[0]
        for upload in uploads:
            with (
                self._errors("freed of what killed uploads left", ""),
                contextlib.suppress(FileNotFoundError),
            ):
                multipart.end(self._call_s3, bucket, upload)

    def _call_s3(self, *arguments: Any, **options: Any) -> Any:
        return self._ask("call_s3", *arguments, **options)

    # -- trying -----------------------------------------------------------------------------------------

    def write_probe(self) -> str:
        """Publishes a probe and returns its name. Raises CheckpointError: the place cannot be used."""
        name = f"{PROBES}/{secrets.token_hex(8)}"
        self.publish(name, name.encode())
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
