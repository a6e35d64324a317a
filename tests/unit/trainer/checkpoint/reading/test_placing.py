"""Pieces of a chunk into tensors: any cut of the bytes, any part of the chunk, any layout of the target."""

from __future__ import annotations

import pytest
import torch

from aurl_trainer.checkpoint.dcp import content
from aurl_trainer.checkpoint.reading.placing import Box, Placer

DTYPES = [torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.complex64]


def place(source: torch.Tensor, boxes: list[Box], piece: int) -> None:
    placer = Placer(source.dtype, tuple(source.shape), boxes)
    data = content(source)
    for start in range(0, data.nbytes, piece):
        placer.add(data[start : start + piece])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("piece", [1, 3, 7, 16, 1000])
def test_a_chunk_and_parts_of_it_arrive_whatever_the_pieces(dtype: torch.dtype, piece: int) -> None:
    source = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(1)).mul(9).to(dtype)
    whole, rows = torch.zeros_like(source), torch.zeros_like(source[1:4])
    inner, strided = (
        torch.zeros_like(source[2:5, 1:3, :2]),
        torch.zeros(3, 4, 5, dtype=dtype).permute(2, 1, 0),
    )
    place(
        source,
        [
            Box((0, 0, 0), (5, 4, 3), whole),
            Box((1, 0, 0), (3, 4, 3), rows),
            Box((2, 1, 0), (3, 2, 2), inner),
            Box((0, 0, 0), (5, 4, 3), strided),
        ],
        piece,
    )
    assert torch.equal(whole, source)
    assert torch.equal(rows, source[1:4])
    assert torch.equal(inner, source[2:5, 1:3, :2])
    assert torch.equal(strided, source), "a target of another layout"


def test_a_scalar_and_an_empty_tensor() -> None:
    scalar, part = torch.tensor(0.0), torch.zeros(2)[1]
    place(torch.tensor(4.5), [Box((), (), scalar), Box((), (), part)], 3)
    assert scalar.item() == part.item() == 4.5
    Placer(torch.float32, (0, 4), [Box((0, 0), (0, 4), torch.empty(0, 4))]).add(memoryview(b""))


def test_a_whole_chunk_is_written_straight_into_the_tensor() -> None:
    target = torch.zeros(6)
    placer = Placer(torch.float32, (6,), [Box((0,), (6,), target)])
    placer.add(content(torch.ones(6))[:10])
    assert target[:2].tolist() == [1.0, 1.0] and target[3:].tolist() == [0.0] * 3, "it was held back"
