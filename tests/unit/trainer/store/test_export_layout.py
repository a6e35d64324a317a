"""Where each byte goes in an exported file, whatever boxes a tensor was cut into."""

from __future__ import annotations

import itertools
import json
import math
import random

import pytest

from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.export.layout import lay_out, runs
from aurl_trainer.store.format.manifest import Chunk, Tensor


def chunk(offsets: tuple[int, ...], sizes: tuple[int, ...], item: int) -> Chunk:
    count = math.prod(sizes) * item
    return Chunk(offsets=offsets, sizes=sizes, pack=0, at=0, bytes=count, hash="0" * 64)


def cut(size: tuple[int, ...], rng: random.Random) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Boxes that cover a tensor: each dimension cut at one random place."""
    places = [sorted({0, rng.randint(0, n), n}) for n in size]
    sides = [[(a, b - a) for a, b in itertools.pairwise(p)] for p in places]
    return [(tuple(o for o, _ in box), tuple(n for _, n in box)) for box in itertools.product(*sides)]


@pytest.mark.parametrize("size", [(), (1,), (7,), (5, 3), (1, 6), (4, 1, 3), (3, 4, 2, 3)], ids=str)
def test_pieces_of_any_size_of_any_boxes_fill_the_tensor(size: tuple[int, ...]) -> None:
    rng = random.Random(str(size))
    for trial in range(20):
        boxes = cut(size, rng)
        chunks = tuple(chunk(o, s, 2) for o, s in boxes)
        tensor = Tensor(dtype="bfloat16", size=size, chunks=chunks)
        content = rng.randbytes(2 * math.prod(size))
        made = bytearray(len(content))
        for part in chunks:
            # The content of a box, element by element, which is what `runs` must not need.
            inside = itertools.product(
                *(range(o, o + n) for o, n in zip(part.offsets, part.sizes, strict=True))
            )
            data = b""
            for place in inside:
                at = sum(i * math.prod(size[d + 1 :]) for d, i in enumerate(place))
                data += content[2 * at : 2 * at + 2]
            at = 0
            while at < len(data):
                piece = data[at : at + rng.randint(1, 9)]
                for run in runs(tensor, part, at, len(piece)):
                    made[run.target : run.target + run.count] = piece[run.source : run.source + run.count]
                at += len(piece)
        assert bytes(made) == content, f"trial {trial}: {boxes}"


def test_what_lies_together_is_one_run() -> None:
    rows = Tensor(dtype="float32", size=(6, 4), chunks=(chunk((0, 0), (2, 4), 4), chunk((2, 0), (4, 4), 4)))
    assert [(r.target, r.count) for r in runs(rows, rows.chunks[1], 0, 64)] == [(32, 64)]


def test_the_header_is_aligned_and_names_each_tensor() -> None:
    tensors = {
        "a": Tensor(dtype="bool", size=(3,), chunks=(chunk((0,), (3,), 1),)),
        "b": Tensor(dtype="float64", size=(), chunks=(chunk((), (), 8),)),
        "nothing": Tensor(dtype="float32", size=(0, 4), chunks=(chunk((0, 0), (0, 4), 4),)),
    }
    layout = lay_out(tensors, {"run": "bäch"})
    length = int.from_bytes(layout.header[:8], "little")
    assert length % 8 == 0 and len(layout.header) == 8 + length
    header = json.loads(layout.header[8:])
    assert header["__metadata__"] == {"run": "bäch"}
    assert header["b"] == {"dtype": "F64", "shape": [], "data_offsets": [0, 8]}, "the widest comes first"
    assert header["a"]["data_offsets"] == [8, 11]
    assert layout.content_bytes == 11


def test_a_type_that_the_format_lacks_is_named() -> None:
    wide = Tensor(dtype="complex128", size=(1,), chunks=(chunk((0,), (1,), 16),))
    with pytest.raises(CheckpointError, match="spectrum is of type complex128"):
        lay_out({"spectrum": wide}, {})
