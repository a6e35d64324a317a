"""Asking the storage that music lies on: again while it fails for the moment, and with errors for people.

What storage does not give is never a file's own fault: such a file is an error and not rejected, or the music
would depend on who asked and when. Not here: which files there are (listing.py), what is in them
(../reading.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from aurl_trainer.errors import DataError, MissingError, UnreadError
from aurl_trainer.store.location.clients import is_async
from aurl_trainer.store.location.faults import Kind, understand
from aurl_trainer.store.location.patience import Patience
from aurl_trainer.store.location.place import shown

PATIENCE = Patience()
"""How long one operation is tried again."""

_MENDED_BY = {
    Kind.EXPIRED: str(Kind.EXPIRED),
    Kind.NO_CREDENTIALS: "no credentials were found: set the store's variables",
    Kind.DENIED: "let the run list and read all of data.source, or take this out of it",
    Kind.NO_BUCKET: "create the bucket or container, or correct data.source",
    Kind.FULL: str(Kind.FULL),
}
"""What waiting does not mend."""


def open_storage(url: str, name: str) -> tuple[Any, str]:
    """File system and path of a URL, which `name` holds; nothing of fsspec's is kept between calls."""
    try:
        system, path = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        raise MissingError(f"{name}: {shown(url)} needs a package: {first_line(error)}") from None
    except ValueError as error:
        raise DataError(f"{name}: {shown(url)}: {first_line(error)}") from None
    return system, str(path)


def ask(system: Any, operation: str, *arguments: Any, failed: str, **options: Any) -> Any:
    """One operation of a file system, tried again while it only fails for the moment.

    Raises FileNotFoundError as it comes; else UnreadError, or DataError where only a person can mend it. The
    message begins with `failed`: what could not be done.
    """

    def act(seconds: float) -> Any:
        if is_async(system):
            from fsspec.asyn import sync

            call = getattr(system, f"_{operation}")
            return sync(system.loop, call, *arguments, timeout=seconds, **options)
        return getattr(system, operation)(*arguments, **options)

    try:
        return PATIENCE.persist(act)
    except FileNotFoundError:
        raise
    except Exception as error:  # each storage has errors of its own
        fault = understand(error)
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        if fault.kind in _MENDED_BY:
            raise DataError(f"{failed}: {fault.text}; {_MENDED_BY[fault.kind]}") from error
        raise UnreadError(
            f"{failed}: {fault.text}{notes}; see whether that storage works, and resume"
        ) from error


def find(system: Any, root: str, failed: str) -> dict[str, dict[str, Any]]:
    """All files below `root` by their paths, with what the file system tells of each.

    Folders that may not be read, as `lost+found`, are passed over. Raises as `ask` does.
    """
    if is_async(system) or type(system).find is not AbstractFileSystem.find:
        found: dict[str, dict[str, Any]] = ask(system, "find", root, detail=True, failed=failed)
        return found
    # fsspec's own passes over folders that fail for the moment, too.
    files: dict[str, dict[str, Any]] = {}
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = ask(system, "ls", folder, detail=True, failed=failed)
        except UnreadError as error:
            if folder == root or _passing(error.__cause__):
                raise
            continue  # such as a link that leads back to a folder above it
        except (DataError, FileNotFoundError):
            if folder == root:
                raise
            continue
        for entry in entries:
            path = entry["name"].rstrip("/")
            if entry["type"] == "directory" and path != folder.rstrip("/"):
                folders.append(path)
            elif entry["type"] != "directory":
                files[entry["name"]] = entry
    return files


def fetch(system: Any, named: Sequence[tuple[str, str]]) -> list[bytes]:
    """The contents of files, each given by its path and by its name for people. Raises as `ask` does.

    One that is not there any more is an UnreadError: the next listing will know.
    """
    places = [place for place, _ in named]
    # Together where that works; fsspec takes names such as 'a[1].mid' for patterns, so those come one by one.
    try:
        found = system.cat(places, on_error="return") if len(places) > 1 else {}
    except Exception:
        found = {}
    contents = []
    for place, name in named:
        body = found.get(place)
        if not isinstance(body, bytes):
            try:
                body = bytes(ask(system, "cat_file", place, failed=f"{name} cannot be read"))
            except FileNotFoundError:
                raise UnreadError(
                    f"{name} was listed, and is not there: change nothing in data.source while it is read, "
                    "and resume"
                ) from None
        contents.append(body)
    return contents


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _passing(error: BaseException | None) -> bool:
    return error is not None and understand(error).passing
