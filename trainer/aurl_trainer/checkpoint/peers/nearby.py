"""A checkpoint's packs from nearby: this node's own disk, then a living peer, then the store.

A range is asked of whoever has a copy of just the size that the manifest names; whoever fails to answer once
is not asked again. What comes from nearby is checked by the same hashes as what comes from the store; if one
does not match, the whole load is made again from the store alone. Not here: serving (serving.py).
"""

from __future__ import annotations

import functools
import http.client
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from aurl_trainer.errors import DamagedError
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.reading import Objects
from aurl_trainer.store.kept import KeptPacks
from aurl_trainer.store.location.place import Location

log = logging.getLogger(__name__)
T = TypeVar("T")

SILENCE_SECONDS = 3.0
"""A peer that is silent for so long has failed."""

ANSWER_SECONDS = 15.0
"""What one answer may take in all."""


@dataclass(frozen=True)
class Offer:
    """What one node has: bytes of each pack on its disk, and where it serves them (None: nowhere)."""

    sizes: dict[str, int]
    address: tuple[str, int] | None


@dataclass
class Tally:
    """What came from one kind of source."""

    requests: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def add(self, size: int, seconds: float) -> None:
        """Counts one answer."""
        self.requests += 1
        self.bytes += size
        self.seconds += seconds


@dataclass(frozen=True)
class Sources:
    """Where the bytes of one load came from, on one rank or on all. `saved` is in seconds, an estimate."""

    disk: int = 0
    peers: int = 0
    store: int = 0
    saved: float = 0.0
    refused: int = 0
    """Loads that were made again from the store because what came from nearby was not what was written."""

    @classmethod
    def of_all(cls, ranks: Sequence[Sources]) -> Sources:
        """Bytes of all ranks together; they load at the same time, so the slowest decides what was saved."""
        return cls(
            sum(r.disk for r in ranks),
            sum(r.peers for r in ranks),
            sum(r.store for r in ranks),
            min((r.saved for r in ranks), default=0.0),
            sum(r.refused for r in ranks),
        )


@dataclass
class Nearby:
    """One rank's way to the packs of a load. `others` are the other nodes' offers.

    `usual` is what the store takes to answer, in seconds, as long as no pack was read from it: that of the
    manifest's read, say, which is small, so that what was saved is rather told too low.
    """

    place: Location
    kept: KeptPacks
    token: str
    others: Sequence[Offer]
    usual: float = 0.0
    refused: int = 0
    _tallies: dict[str, Tally] = field(
        default_factory=lambda: {k: Tally() for k in ("disk", "peers", "store")}
    )
    _failed: set[tuple[str, int]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _turn: itertools.count[int] = field(default_factory=itertools.count)

    def load(self, manifest: Manifest, read: Callable[[Objects], T]) -> T:
        """What `read` makes of the packs; once more from the store alone if what is nearby was not right."""
        mixed = _Mixed(self, {p.path: p.bytes for p in manifest.packs}, self.kept.sizes())
        try:
            return read(mixed)
        except DamagedError as error:
            if not mixed.used:
                raise
            log.warning("a copy nearby is refused, the store is read instead: %s", error)
            self.refused += 1
            self._tallies |= {"disk": Tally(), "peers": Tally()}  # read for nothing
            return read(_Mixed(self, {}, {}))

    def sources(self) -> Sources:
        """Where the bytes came from up to now."""
        store = self._tallies["store"]
        usual = store.seconds / store.requests if store.requests else self.usual
        near = [self._tallies[k] for k in ("disk", "peers")]
        saved = sum(t.requests * usual - t.seconds for t in near)
        disk, peers = near
        return Sources(disk.bytes, peers.bytes, store.bytes, saved, self.refused)

    def from_disk(self, name: str, start: int, end: int) -> bytes | None:
        """This node's own copy."""
        return self._timed("disk", lambda: self.kept.read(name, start, end))

    def from_peer(self, name: str, size: int, start: int, end: int) -> bytes | None:
        """A peer's copy: each has its turn."""
        having = [o.address for o in self.others if o.address is not None and o.sizes.get(name) == size]
        turn = next(self._turn)
        for index in range(len(having)):
            address = having[(turn + index) % len(having)]
            if address in self._failed:
                continue
            try:
                ask = functools.partial(_ask, address, self.token, name, start, end)
                return self._timed("peers", ask)
            except (OSError, http.client.HTTPException, TimeoutError) as error:
                with self._lock:
                    if address not in self._failed:
                        log.warning("peer %s:%d is not asked any more: %s", *address, error)
                    self._failed.add(address)
        return None

    def from_store(self, name: str, start: int | None, end: int | None) -> bytes:
        """The store's."""
        data = self._timed("store", lambda: self.place.get(name, start, end))
        assert data is not None
        return data

    def _timed(self, source: str, act: Callable[[], bytes | None]) -> bytes | None:
        began = time.monotonic()
        data = act()
        if data is not None:
            with self._lock:
                self._tallies[source].add(len(data), time.monotonic() - began)
        return data


class _Mixed:
    """Each range from the nearest that has it; packs that are not among `packs` from the store."""

    def __init__(self, nearby: Nearby, packs: dict[str, int], own: dict[str, int]) -> None:
        self._nearby, self._packs, self._own = nearby, packs, own
        self.used = False

    def size(self, name: str) -> int:
        """What the manifest says, where a copy has just that; else what the store says.

        The store is asked for those, too, while they are read (lost.py): what it has lost must be told.
        """
        expected = self._packs.get(name)
        offers = [self._own, *(o.sizes for o in self._nearby.others if o.address is not None)]
        if expected is not None and any(sizes.get(name) == expected for sizes in offers):
            return expected
        return self._nearby.place.size(name)

    def get(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """See Objects."""
        expected = self._packs.get(name)
        if expected is None or start is None or end is None or start >= end:
            return self._nearby.from_store(name, start, end)
        data = self._nearby.from_disk(name, start, end) if self._own.get(name) == expected else None
        if data is None:
            data = self._nearby.from_peer(name, expected, start, end)
        if data is None:
            return self._nearby.from_store(name, start, end)
        self.used = True
        return data


def _ask(address: tuple[str, int], token: str, name: str, start: int, end: int) -> bytes:
    """One range from a peer. Raises OSError, TimeoutError and http.client.HTTPException."""
    deadline = time.monotonic() + ANSWER_SECONDS
    connection = http.client.HTTPConnection(*address, timeout=SILENCE_SECONDS)
    try:
        headers = {"Authorization": f"Bearer {token}", "Range": f"bytes={start}-{end - 1}"}
        connection.request("GET", f"/{name}", headers=headers)
        answer = connection.getresponse()
        if answer.status != 206 or answer.length != end - start:
            raise http.client.HTTPException(f"answered {answer.status}")
        parts = []
        while block := answer.read1(2**20):
            parts.append(block)
            if time.monotonic() > deadline:
                raise TimeoutError("answers too slowly")
        data = b"".join(parts)
        if len(data) != end - start:
            raise http.client.HTTPException("answered less than was asked for")
        return data
    finally:
        connection.close()
