"""Saves that refer to what earlier ones wrote: what is written again, and that nothing in use ever goes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from aurl_trainer.checkpoint.saving.flight import Flight
from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.checkpoint import small
from tests.unit.trainer.checkpoint.small import finish
from tests.unit.trainer.store.faulty import Died, FaultyFileSystem

URI = "faulty://references"
opened, steps = partial(small.opened, URI), partial(small.steps, URI)


@pytest.fixture(autouse=True)
def empty_store() -> Iterator[None]:
    FaultyFileSystem.clear()
    yield
    FaultyFileSystem.clear()


def test_frozen_layers_are_written_once_and_their_pack_stays() -> None:
    state = {"m": {"frozen": torch.randn(1000), "trained": torch.randn(1000)}}
    saver = opened(state, compression=0, keep=KeepConfig(latest=1, best=0, grace_seconds=0))
    written = []
    for step in range(1, 5):
        saver.begin(step, state, {}, {})
        saved = finish(saver)
        written.append((saved.bytes, saved.reused))
        state["m"]["trained"] += 1
    assert written == [(8000, 0)] + [(4000, 4000)] * 3
    store = RunStore(Location(URI))
    assert steps() == [4] and len(store.pack_folders()) == 2, "the first pack and the last"
    # Another generation goes on from there, and refers to the same pack.
    loaded = {"m": {"frozen": torch.zeros(1000), "trained": torch.zeros(1000)}}
    saver = opened(loaded, compression=0, keep=KeepConfig(latest=1, best=0, grace_seconds=0))
    assert torch.equal(loaded["m"]["frozen"], state["m"]["frozen"])
    loaded["m"]["trained"] += 1
    saver.begin(5, loaded, {}, {})
    saved = finish(saver)
    assert (saved.bytes, saved.reused) == (4000, 4000)


def test_after_some_saves_everything_is_written_again() -> None:
    state = {"m": {"frozen": torch.randn(1000), "trained": torch.randn(1000)}}
    saver = opened(state, compression=0, whole_every=3, keep=KeepConfig(latest=9, grace_seconds=0))
    written = []
    for step in range(1, 8):
        saver.begin(step, state, {}, {})
        written.append(finish(saver).bytes)
        state["m"]["trained"] += 1
    assert written == [8000, 4000, 4000, 8000, 4000, 4000, 8000]


def test_after_a_commit_without_an_answer_nothing_is_referred_to() -> None:
    state = {"m": {"frozen": torch.randn(1000), "trained": torch.randn(1000)}}
    saver = opened(state, compression=0, keep=KeepConfig(latest=1, best=0, grace_seconds=0))
    saver.begin(1, state, {}, {})
    finish(saver)

    def silent(number: int, kind: str, path: str) -> None:
        if kind == "answer" and "manifests/v000002" in path:
            raise TimeoutError("no answer")

    FaultyFileSystem.reset(silent)
    state["m"]["trained"] += 1
    saver.begin(2, state, {}, {})
    with pytest.raises(CheckpointError, match="no answer"):
        saver.finish()
    saver.tidy()
    assert steps() == [1, 2], "it has arrived all the same"
    state["m"]["trained"] += 1
    saver.begin(3, state, {}, {})
    saved = finish(saver)
    assert (saved.bytes, saved.reused) == (8000, 0)
    assert steps() == [3]


def test_after_giving_up_just_before_the_commit_nothing_is_referred_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = {"model": {"frozen": torch.rand(1000), "w": torch.rand(1000)}}
    saver = opened(state, compression=0, keep=KeepConfig(latest=9, grace_seconds=0))
    looks = 0
    last: int | None = None
    check = Flight.check

    def counted(self: Flight) -> None:
        nonlocal looks
        check(self)
        looks += 1
        if looks == last:
            self.fail("the time is over")

    monkeypatch.setattr(Flight, "check", counted)
    for step in (1, 2):
        looks = 0
        state["model"]["w"] += 1
        saver.begin(step, state, {}, {})
        assert finish(saver).reused == (0 if step == 1 else 4000)
    looks, last = 0, looks
    state["model"]["w"] += 1
    saver.begin(3, state, {}, {})
    with pytest.raises(CheckpointError, match="the time is over"):
        saver.finish()
    saver.tidy()
    last = None
    assert steps() == [1, 2, 3], "it was given up before its commit, which this is not about"
    saver.begin(4, state, {}, {})
    assert finish(saver).reused == 0, "it refers to a save that is not the newest, which gc may remove"


def test_a_stop_at_any_operation_loses_neither_a_checkpoint_nor_a_pack_in_use() -> None:
    at, stopped = 0, True
    while stopped:
        FaultyFileSystem.clear()
        state = {"m": {"frozen": torch.randn(100), "trained": torch.randn(100)}}
        keep = KeepConfig(latest=1, best=0, grace_seconds=0)
        saver = opened(state, keep=keep)
        for step in (1, 2):
            saver.begin(step, state, {}, {})
            finish(saver)
            state["m"]["trained"] += 1

        def die(number: int, kind: str, path: str, at: int = at) -> None:
            if number >= at:
                raise Died

        FaultyFileSystem.reset(die)
        try:
            for step in (3, 4):
                saver.begin(step, state, {}, {})
                finish(saver)
                state["m"]["trained"] += 1
            stopped = FaultyFileSystem.operations > at
        except Died:
            pass
        FaultyFileSystem.reset()
        store = RunStore(Location(URI))
        names = store.valid()
        assert names and names[-1].step >= 2, f"a stop at operation {at} lost the newest checkpoint"
        for name in names:
            assert verify(store, name).good, f"a stop at operation {at} lost a pack of {name}"
        saver = opened(state, keep=keep)
        saver.begin(9, state, {}, {})
        finish(saver)
        store = RunStore(Location(URI))
        assert verify(store, store.valid()[-1]).good and len(store.pack_folders()) <= 2
        at += 1
    assert at > 10, "the stops were never met"
