"""Chunks of a tensor: they cover it, each element once, or the manifest is none."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurl_trainer.store.format import boxes as room
from aurl_trainer.store.format.boxes import Box, disjoint
from aurl_trainer.store.format.manifest import Chunk, Tensor

spans = st.tuples(st.integers(0, 3), st.integers(0, 3))


@given(st.integers(0, 3).flatmap(lambda dims: st.lists(st.tuples(*[spans] * dims), max_size=5)))
def test_it_is_as_when_elements_are_counted(drawn: list[tuple[tuple[int, int], ...]]) -> None:
    boxes: list[Box] = [(tuple(o for o, _ in box), tuple(n for _, n in box)) for box in drawn]
    elements = [
        place
        for offsets, sizes in boxes
        for place in itertools.product(*(range(o, o + n) for o, n in zip(offsets, sizes, strict=True)))
    ]
    assert disjoint(boxes) == (len(elements) == len(set(elements)))


PINWHEEL: list[Box] = [
    ((0, 0), (1, 2)),
    ((0, 2), (2, 1)),
    ((2, 1), (1, 2)),
    ((1, 0), (2, 1)),
    ((1, 1), (1, 1)),
]


def tensor(size: tuple[int, ...], boxes: list[Box]) -> Tensor:
    return Tensor(
        dtype="float32",
        size=size,
        chunks=tuple(
            Chunk(offsets=o, sizes=n, pack=0, at=0, bytes=4 * math.prod(n), hash="0" * 64) for o, n in boxes
        ),
    )


def test_boxes_that_no_cut_takes_apart_may_cover_a_tensor() -> None:
    assert len(tensor((3, 3), PINWHEEL).chunks) == 5


@pytest.mark.parametrize(
    ("size", "boxes"),
    [
        ((4,), [((0,), (2,)), ((1,), (2,))]),
        ((4,), [((0,), (3,)), ((2,), (1,))]),
        ((2, 2), [((0, 0), (1, 2)), ((0, 1), (2, 1))]),
        ((3, 3), [*PINWHEEL[:-1], ((0, 0), (1, 1))]),
    ],
)
def test_one_element_twice_and_another_never_is_no_tensor(size: tuple[int, ...], boxes: list[Box]) -> None:
    assert sum(math.prod(n) for _, n in boxes) == math.prod(size), "the volume alone tells it"
    with pytest.raises(ValueError, match="the chunks do not cover the tensor exactly"):
        tensor(size, boxes)


def test_a_grid_of_a_large_world_is_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(a: Box, b: Box) -> bool:
        raise AssertionError("two of 4,096 boxes were compared")

    monkeypatch.setattr(room, "_meet", never)
    assert disjoint([((8 * i, 8 * j), (8, 8)) for i in range(64) for j in range(64)])
