"""The copy that a step waits for: laid out once, and laid out anew when the tensors are others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aurl_trainer.checkpoint.agreement import Ranks
from aurl_trainer.checkpoint.saving.planning import Plans
from aurl_trainer.checkpoint.saving.staging import Box, Staging


class Copying:
    """Stages a state as a save does."""

    def __init__(self) -> None:
        self._plans = Plans(Ranks(0, 1))
        self.staging = Staging()

    def __call__(self, tensors: dict[str, torch.Tensor]) -> dict[str, Box]:
        if not self._plans.take(tensors):
            self._plans.make()
        return {box.key: box for box in self.staging.stage(self._plans.boxes())}


def value(box: Box) -> torch.Tensor:
    flat: Any = torch.frombuffer(bytearray(box.content), dtype=getattr(torch, box.dtype))
    return flat.reshape(box.sizes)  # type: ignore[no-any-return]


def test_the_second_copy_goes_to_the_same_memory_and_shows_what_the_tensors_hold_now() -> None:
    copying = Copying()
    tensors = {"a": torch.randn(7, 3), "b": torch.arange(5), "t": torch.randn(4, 6).T, "s": torch.tensor(1.5)}
    first = copying(tensors)
    assert all(torch.equal(value(first[k]), t) for k, t in tensors.items())
    for tensor in tensors.values():
        tensor += 1
    second = copying(tensors)
    assert all(second[k].content.obj is first[k].content.obj for k in tensors), "another buffer was taken"
    assert all(torch.equal(value(second[k]), t) for k, t in tensors.items())


def test_memory_that_cannot_be_locked_serves_for_a_device(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Sandboxes and limits refuse to lock what they give; a run that saves slowly is better than none."""

    def refuse(address: int, size: int) -> None:
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr("aurl_trainer.checkpoint.saving.staging.lock", refuse)
    staging = Staging()
    for size in (64, 640):
        staging._reserve(size, cuda=True)
        assert staging.bytes == size and not staging.pinned
    assert "cannot be page-locked: operation not permitted" in caplog.text


def test_a_tensor_that_was_replaced_is_found() -> None:
    copying = Copying()
    tensors = {"a": torch.zeros(3), "b": torch.zeros(3)}
    copying(tensors)
    tensors["a"] = torch.ones(3)
    assert torch.equal(value(copying(tensors)["a"]), torch.ones(3))
    tensors["b"] = tensors["a"]  # tied from now on
    tied = copying(tensors)
    assert torch.equal(value(tied["b"]), torch.ones(3))
    tensors["a"] += 1
    assert torch.equal(value(copying(tensors)["b"]), torch.full((3,), 2.0))


def test_tied_tensors_are_copied_once_and_empty_ones_take_no_room() -> None:
    copying = Copying()
    tensor = torch.randn(16)
    boxes = copying({"a": tensor, "b": tensor, "c": torch.empty(0, 4)})
    assert copying.staging.bytes == tensor.nbytes
    assert torch.equal(value(boxes["a"]), tensor) and torch.equal(value(boxes["b"]), tensor)
    assert boxes["c"].content.nbytes == 0


def test_a_state_that_grows_gets_a_larger_buffer_and_one_that_shrinks_keeps_it() -> None:
    copying = Copying()
    copying({"a": torch.randn(16)})
    small = copying.staging.bytes
    grown = {"a": torch.randn(16), "b": torch.randn(64)}
    boxes = copying(grown)
    assert copying.staging.bytes == small + grown["b"].nbytes
    assert all(torch.equal(value(boxes[k]), t) for k, t in grown.items())
    copying({"a": grown["a"]})
    assert copying.staging.bytes == small + grown["b"].nbytes
