"""Chunks as a stream: in pieces, read ahead within a bound, and nothing wrong passes."""

from __future__ import annotations

import hashlib
import random
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import zstandard

from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.format import reading
from aurl_trainer.store.format.manifest import Chunk, Manifest, Pack, Tensor
from aurl_trainer.store.format.packs import PackWriter
from aurl_trainer.store.format.reading import Wanted, stream
from aurl_trainer.store.location.place import Location
from tests.unit.trainer.store.made import IDENTITY

NAME = "v000001-s00000010-g000001-0123abcd"
PACK = f"packs/{NAME}/rank-0000.pack"
PIECE, AHEAD = 64, 256


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a large chunk is one of some hundred bytes."""
    monkeypatch.setattr(reading, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(reading, "AHEAD_BYTES", AHEAD)


def manifest_of(tensors: dict[str, Tensor], size: int) -> Manifest:
    return Manifest(
        format="aurl-checkpoint", version=1, name=NAME, number=1, step=10, generation=1, nonce="0123abcd",
        run="r", at=0.0, world=1, identity=IDENTITY, versions={}, metrics={}, extra={}, scalars={},
        packs=(Pack(path=PACK, bytes=size),), tensors=tensors,
    )  # fmt: skip


CONTENTS = {
    "large.noise": random.Random(1).randbytes(1000),
    "large.words": b"bach " * 300,
    "large.zeros": bytes(5000),
    "nothing": b"",
    "small.a": random.Random(2).randbytes(20),
    "small.b": bytes(40),
}


def made(location: Location, level: int = 3) -> Manifest:
    tensors = {}
    with location.writing(PACK) as file:
        pack = PackWriter(file, level)
        for key, data in CONTENTS.items():
            stored = pack.add(memoryview(data))
            chunk = Chunk(
                offsets=(0,), sizes=(len(data),), pack=0, at=stored.at, bytes=stored.bytes,
                codec=stored.codec, hash=stored.hash, stored=stored.stored,
            )  # fmt: skip
            tensors[key] = Tensor(dtype="uint8", size=(len(data),), chunks=(chunk,))
    return manifest_of(tensors, pack.bytes)


def wanted(manifest: Manifest) -> list[Wanted]:
    return [Wanted(k, c) for k, t in manifest.tensors.items() for c in t.chunks]


def everything(location: Location, manifest: Manifest) -> dict[str, bytes]:
    found: dict[str, bytearray] = {}
    for piece in stream(location, manifest, wanted(manifest)):
        content = found.setdefault(piece.item.tensor, bytearray())
        assert piece.at == len(content), "the pieces of a chunk come in order"
        assert piece.data.nbytes <= PIECE, "a piece is larger than said"
        content += piece.data
    return {k: bytes(v) for k, v in found.items()}


@pytest.mark.parametrize("level", [0, 3])
def test_all_content_comes_back_in_pieces(tmp_path: Path, level: int) -> None:
    location = Location(str(tmp_path))
    manifest = made(location, level)
    codecs = {t.chunks[0].codec for t in manifest.tensors.values()}
    assert codecs == ({"raw"} if level == 0 else {"raw", "zstd"})
    assert everything(location, manifest) == CONTENTS
    told = sum(p.stored for p in stream(location, manifest, wanted(manifest)))
    assert told == manifest.packs[0].bytes, "progress bars would not end at 100 %"


@pytest.mark.parametrize("level", [0, 3])
def test_a_flipped_bit_is_found_wherever_it_is(level: int) -> None:
    location = Location(f"memory://flips-{level}")
    manifest = made(location, level)
    good = location.get(PACK)
    for at in range(0, len(good), 61):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        location.put(PACK, bytes(bad))
        with pytest.raises(DamagedError, match=NAME):
            everything(location, manifest)


def test_no_more_is_read_ahead_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    location = Location("memory://ahead")
    manifest = made(location, 0)
    lock, read, get = threading.Lock(), [0], location.get

    def counting(name: str, start: int | None = None, end: int | None = None) -> bytes:
        with lock:
            read[0] += (end or 0) - (start or 0)
        return get(name, start, end)

    monkeypatch.setattr(location, "get", counting)
    taken = 0
    for piece in stream(location, manifest, wanted(manifest)):
        taken += piece.stored
        assert read[0] - taken <= AHEAD + PIECE, "more is held than the bound allows"
    assert read[0] == taken == manifest.packs[0].bytes, "something was read twice"


def test_whoever_stops_early_leaves_no_thread_behind() -> None:
    location = Location("memory://stops")
    manifest = made(location, 0)
    before = threading.active_count()
    pieces = stream(location, manifest, wanted(manifest))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_one_of_its_own_threads_may_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the garbage collector does, in whichever thread it runs, to one that nobody reads to its end."""
    location = Location("memory://ended")
    manifest = made(location, 0)
    begun, ended = threading.Event(), threading.Event()
    problems: list[Any] = []
    get = location.get

    def ending(name: str, start: int | None = None, end: int | None = None) -> bytes:
        if start and begun.wait(60) and not ended.is_set():
            pieces.close()  # type: ignore[attr-defined]
            ended.set()
        return get(name, start, end)

    monkeypatch.setattr(sys, "unraisablehook", lambda problem: problems.append(problem.exc_value))
    monkeypatch.setattr(location, "get", ending)
    monkeypatch.setattr(reading, "READERS", 2)  # the first piece, and one that ends it
    pieces = stream(location, manifest, wanted(manifest))
    next(pieces)
    begun.set()
    assert ended.wait(60), "nothing was read ahead"
    assert problems == []


def test_a_store_that_stops_answering_is_not_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    location = Location("memory://silent")
    manifest = made(location, 0)
    get = location.get

    def failing(name: str, start: int | None = None, end: int | None = None) -> bytes:
        if start:
            raise CheckpointError("the store is gone")
        return get(name, start, end)

    monkeypatch.setattr(location, "get", failing)
    with pytest.raises(CheckpointError, match="the store is gone") as caught:
        everything(location, manifest)
    assert not isinstance(caught.value, DamagedError)


@pytest.mark.parametrize("stored_size", [100, 1000], ids=["small", "large"])
@pytest.mark.parametrize("what", ["too much", "too little", "no size", "trailing", "no frame"])
def test_a_frame_that_lies_is_found_however_well_it_is_sealed(what: str, stored_size: int) -> None:
    """The hash of what is stored is right; the frame itself is not what the tensor needs."""
    content = random.Random(3).randbytes(stored_size)
    compressor = zstandard.ZstdCompressor()
    frame = {
        "too much": compressor.compress(content + b"x"),
        "too little": compressor.compress(content[:-1]),
        "no size": zstandard.ZstdCompressor(write_content_size=False).compress(content),
        "trailing": compressor.compress(content) + b"more",
        "no frame": random.Random(4).randbytes(stored_size),
    }[what]
    location = Location("memory://lies")
    location.put(PACK, frame)
    chunk = Chunk(
        offsets=(0,), sizes=(len(content),), pack=0, at=0, bytes=len(frame), codec="zstd",
        hash=hashlib.sha256(content if what != "no frame" else b"").hexdigest(),
        stored=hashlib.sha256(frame).hexdigest(),
    )  # fmt: skip
    manifest = manifest_of({"t": Tensor(dtype="uint8", size=(len(content),), chunks=(chunk,))}, len(frame))
    with pytest.raises(DamagedError, match="t in packs"):
        everything(location, manifest)
