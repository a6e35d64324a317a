"""Contents into a pack and out again: large ones in pieces, compressed where a sample says so."""

from __future__ import annotations

import hashlib
import io
import random

import pytest
import zstandard

from aurl_trainer.store.format import packs
from aurl_trainer.store.format.compression import REMEMBERED, SAMPLE_BYTES, Compression
from aurl_trainer.store.format.packs import PackWriter

NOISE = random.Random(1).randbytes(4 * SAMPLE_BYTES)
SMOOTH = bytes(range(256)) * (len(NOISE) // 256)


def test_a_large_content_is_compressed_in_pieces_and_is_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PIECE_BYTES", 1000)
    file = io.BytesIO()
    writer = PackWriter(file, 3)
    stored = writer.add(memoryview(SMOOTH))
    data = file.getvalue()
    assert stored.codec == "zstd" and stored.bytes == len(data) == writer.bytes < len(SMOOTH) / 10
    assert zstandard.frame_content_size(data) == len(SMOOTH), "a reader checks it before it decompresses"
    assert zstandard.ZstdDecompressor().decompress(data) == SMOOTH
    assert stored.hash == hashlib.sha256(SMOOTH).hexdigest()
    assert stored.stored == hashlib.sha256(data).hexdigest()


def test_writing_can_be_stopped_between_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PIECE_BYTES", 1000)
    calls = iter(range(10))

    def alive() -> None:
        if next(calls) == 3:
            raise RuntimeError("stop")

    for level in (0, 3):
        calls = iter(range(10))
        file = io.BytesIO()
        with pytest.raises(RuntimeError, match="stop"):
            PackWriter(file, level, alive).add(memoryview(NOISE))
        assert len(file.getvalue()) <= 3000


def test_a_sample_decides_and_is_remembered() -> None:
    compression = Compression(3)
    assert compression.worth("smooth", memoryview(SMOOTH))
    assert not compression.worth("changes", memoryview(NOISE))
    tries = [compression.worth("changes", memoryview(SMOOTH)) for _ in range(REMEMBERED + 1)]
    assert tries == [False] * REMEMBERED + [True], "what did not shrink is tried again only after some saves"
    assert not Compression(0).worth("smooth", memoryview(SMOOTH)), "level 0 is off"


def test_a_sample_that_promised_too_much_is_believed_once() -> None:
    edges = bytearray(NOISE * 4)
    for at in (0, (len(edges) - SAMPLE_BYTES) // 2, len(edges) - SAMPLE_BYTES):
        edges[at : at + SAMPLE_BYTES] = bytes(SAMPLE_BYTES)
    compression = Compression(3)
    assert compression.worth("edges", memoryview(edges))
    assert not compression.learned("edges", len(edges), len(edges))
    assert not compression.worth("edges", memoryview(edges))
