"""Contents into durable packs while others are still being hashed: several at a time where there is much.

Runs in threads of a save's own. No torch. Not here: which contents are written (upload.py), how a pack looks
(store/format/packs.py).
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from aurl_trainer.checkpoint.saving.staging import Box
from aurl_trainer.store.format.compression import Compression
from aurl_trainer.store.format.manifest import Pack
from aurl_trainer.store.format.packs import PackWriter
from aurl_trainer.store.incremental import Placed
from aurl_trainer.store.location.place import Location

SPLIT_BYTES = 64 * 2**20
"""Another pack is begun where so much waits to be written: it is worth an object."""


class Packing:
    """One rank's packs of one save. `add` contents, then `finish`; leaving the block early gives all up.

    `path` names the pack of each number from 0; at most `most` are written at the same time, and without
    contents there is none. `alive` is called between pieces and raises to give the save up.
    """

    def __init__(
        self,
        location: Location,
        path: Callable[[int], str],
        compression: Compression,
        *,
        most: int,
        alive: Callable[[], None],
    ) -> None:
        self._location = location
        self._path = path
        self._compression = compression
        self._most = most
        self._save_alive = alive
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, Box]] = deque()
        self._waiting_bytes = 0
        self._complete = False
        self._failed: BaseException | None = None
        self._placed: dict[str, Placed] = {}
        self._packs: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail(error)
        self._join()

    def add(self, digest: str, box: Box) -> None:
        """Has a content written, once for each digest. Raises what ended a pack, if anything did."""
        with self._changed:
            if self._failed is not None:
                raise self._failed
            count = len(self._packs)
            much = self._waiting_bytes + box.content.nbytes >= SPLIT_BYTES
            if not count or (much and count < self._most):
                # A daemon: a disk that hangs must not keep the process from ending.
                pack = threading.Thread(
                    target=self._run, args=(self._path(count), (digest, box)), name="pack", daemon=True
                )
                pack.start()
                self._packs.append(pack)
                return
            self._waiting.append((digest, box))
            self._waiting_bytes += box.content.nbytes
            self._changed.notify()

    def finish(self) -> dict[str, Placed]:
        """Where each content lies, all of them durable. Raises CheckpointError when the store refuses."""
        with self._changed:
            self._complete = True
            self._changed.notify_all()
        self._join()
        if self._failed is not None:
            raise self._failed
        return self._placed

    def _join(self) -> None:
        for pack in self._packs:
            pack.join()

    # -- a pack's own thread

    def _run(self, path: str, first: tuple[str, Box]) -> None:
        try:
            placed = self._write(path, first)
        except BaseException as error:
            self._fail(error)
            return
        with self._changed:
            self._placed |= placed

    def _write(self, path: str, first: tuple[str, Box]) -> dict[str, Placed]:
        """One pack; what it takes beside its first content depends on how fast the others are."""
        found = {}
        with self._location.writing(path) as file:
            pack = PackWriter(file, self._compression.level, self._alive)
            for digest, box in itertools.chain([first], self._taken()):
                key = f"{box.key} {box.offsets} {box.content.nbytes}"
                worth = self._compression.worth(key, box.content)
                found[digest] = pack.add(box.content, digest, worth)
                if worth:
                    self._compression.learned(key, box.content.nbytes, found[digest].bytes)
        whole = Pack(path=path, bytes=pack.bytes)
        return {digest: Placed(whole, stored) for digest, stored in found.items()}

    def _taken(self) -> Iterator[tuple[str, Box]]:
        """What is next for this pack, until there is no more."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._complete or self._failed is not None)
                self._alive()
                if not self._waiting:
                    return
                digest, box = self._waiting.popleft()
                self._waiting_bytes -= box.content.nbytes
            yield digest, box

    def _alive(self) -> None:
        self._save_alive()
        if self._failed is not None:
            raise self._failed  # the others need not go on

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failed = self._failed or error
            self._changed.notify_all()
