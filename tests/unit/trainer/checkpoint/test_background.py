"""Saves beside the training: what the step waits for, what counts when, and what goes wrong meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aurl_trainer.checkpoint.saving import committing, flight, packing
from aurl_trainer.checkpoint.saving.planning import Plans
from aurl_trainer.errors import CheckpointError, FencedError
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.checkpoint import small
from tests.unit.trainer.checkpoint.small import checkpointer, finish, no_threads
from tests.unit.trainer.store.faulty import FaultyFileSystem

URI = "faulty://background"
opened, steps = partial(small.opened, URI), partial(small.steps, URI)
WAIT = 30.0
LATER = SimpleNamespace(monotonic=lambda: time.monotonic() + 1000)
"""A clock by which a save has had its time."""


class Gate:
    """Holds the store up at operations on paths with a text in them, until it is opened."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, number: int, kind: str, path: str) -> None:
        if self._text in path and kind != "delete" and not self._open.is_set():
            self.reached.set()
            assert self._open.wait(WAIT), "nobody opened the gate"

    def open(self) -> None:
        self._open.set()


@pytest.fixture(autouse=True)
def empty_store() -> Iterator[None]:
    FaultyFileSystem.clear()
    yield
    FaultyFileSystem.clear()


def test_training_goes_on_and_what_is_saved_is_what_was() -> None:
    state = {"model": {"w": torch.ones(1000)}}
    saver = opened(state)
    gate = Gate("s00000001")
    FaultyFileSystem.reset(gate)
    saver.begin(1, state, {"note": [1]}, {})
    state["model"]["w"] += 1
    assert gate.reached.wait(WAIT)
    assert saver.under_way == 1 and saver.signals() == (1.0, 0.0, 0.0, 0.0)
    assert saver.heard(1.0, 0.0, 0.0, 0.0) is None and steps() == [], "it counts before it is durable"
    gate.open()
    saved = finish(saver)
    assert (saved.step, steps(), saver.under_way) == (1, [1], None)
    loaded = {"model": {"w": torch.zeros(1000)}}
    assert checkpointer(URI).open(loaded).restored is not None
    assert torch.equal(loaded["model"]["w"], torch.ones(1000)), "the step after the save is in it"


def test_it_does_not_count_while_its_manifest_is_on_the_way() -> None:
    state = {"w": torch.ones(10)}
    saver = opened(state)
    gate = Gate("manifests/")
    FaultyFileSystem.reset(gate)
    saver.begin(1, state, {}, {})
    assert gate.reached.wait(WAIT)
    assert RunStore(Location(URI)).location.names("packs") and steps() == []
    gate.open()
    assert finish(saver).step == 1 and steps() == [1]


def test_one_save_at_a_time() -> None:
    state = {"w": torch.ones(10)}
    saver = opened(state)
    gate = Gate("packs/")
    FaultyFileSystem.reset(gate)
    saver.begin(1, state, {}, {})
    with pytest.raises(RuntimeError, match="the save of step 1 is still under way"):
        saver.begin(2, state, {}, {})
    gate.open()
    finish(saver)


def test_memory_is_taken_once_and_plans_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make = Plans.make

    def counting(self: Plans) -> None:
        made.append(1)
        make(self)

    monkeypatch.setattr(Plans, "make", counting)
    tied = torch.randn(1000)
    state: dict[str, Any] = {"m": {"a": tied, "b": tied, "c": torch.randn(100)}}
    saver = opened({})
    for step in (1, 2, 3):
        saver.begin(step, state, {}, {})
        finish(saver)
        tied += 1
    assert len(made) == 1 and saver.staging_bytes == 4032 + 448, "aligned, tied weights once"
    state["m"]["d"] = torch.randn(1000)
    saver.begin(4, state, {}, {})
    assert finish(saver).staging == 4032 + 448 + 4032 and len(made) == 2
    del state["m"]["d"]
    saver.begin(5, state, {}, {})
    assert finish(saver).staging == 4032 + 448 + 4032, "memory was taken anew"


def test_a_failure_is_heard_once_costs_one_save_and_leaves_nothing() -> None:
    state = {"w": torch.ones(10)}
    saver = opened(state)
    saver.begin(1, state, {}, {})
    finish(saver)

    def full(number: int, kind: str, path: str) -> None:
        if kind in ("put", "write") and "s00000002" in path:
            raise OSError(28, "No space left on device")

    FaultyFileSystem.reset(full)
    state["w"] += 1
    saver.begin(2, state, {}, {})
    with pytest.raises(CheckpointError, match="no space is left there"):
        saver.finish()
    assert saver.under_way is None and saver.heard(*saver.signals()) is None
    assert saver.tidy() and len(RunStore(Location(URI)).location.folders("packs")) == 1
    saver.begin(3, state, {}, {})
    finish(saver)
    assert steps() == [1, 3]


def test_a_defect_in_the_thread_is_a_failed_save(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state = {"w": torch.ones(10)}
    saver = opened(state)
    with monkeypatch.context() as patch:
        patch.setattr(committing, "assemble", lambda pieces: 1 / 0)
        saver.begin(1, state, {}, {})
        with pytest.raises(CheckpointError, match="ZeroDivisionError"):
            saver.finish()
    assert "Traceback" in caplog.text, "whoever mends it needs the traceback"
    saver.begin(2, state, {}, {})
    assert finish(saver).step == 2


def test_no_memory_for_the_copy_is_a_failed_save(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"w": torch.ones(10)}
    saver = opened(state)

    def none_left(*_: Any, **__: Any) -> None:
        raise MemoryError("not so much")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", none_left)
        with pytest.raises(CheckpointError, match="MemoryError: not so much"):
            saver.begin(1, state, {}, {})
    assert saver.under_way is None
    saver.begin(2, state, {}, {})
    assert finish(saver).step == 2


def test_without_a_thread_a_save_fails_and_the_next_one_is_made(caplog: pytest.LogCaptureFixture) -> None:
    state = {"w": torch.ones(10)}
    with no_threads():
        saver = opened(state)
        saver.begin(1, state, {}, {})
        with pytest.raises(CheckpointError, match="no thread could be started"):
            saver.finish()
        assert saver.under_way is None and saver.tidy()
    for whose in ("earlier worlds", "the save of step 1"):
        assert f"the removal of what {whose} left is left for later: no thread could be" in caplog.text
    saver.begin(2, state, {}, {})
    assert finish(saver).step == 2


def test_a_save_has_a_deadline_and_what_hangs_holds_no_later_one_up(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"w": torch.ones(10)}
    saver = opened(state, deadline=600)
    gate = Gate("s00000001")
    FaultyFileSystem.reset(gate)
    saver.begin(1, state, {}, {})
    assert gate.reached.wait(WAIT)
    with monkeypatch.context() as patch:
        patch.setattr(flight, "time", LATER)
        with pytest.raises(CheckpointError, match=r"not durable within 600 s, which checkpoint\.deadline"):
            saver.finish()
    with pytest.raises(CheckpointError, match="the save of step 1 still hangs in the store"):
        saver.begin(2, state, {}, {})
    gate.open()
    assert saver.tidy(WAIT)
    saver = opened(state)
    saver.begin(3, state, {}, {})
    finish(saver)
    assert steps() == [3], "what was given up counts"


def test_a_save_given_up_stops_and_the_next_one_follows() -> None:
    state = {"w": torch.ones(10), "v": torch.zeros(10)}
    saver = opened(state)
    gate = Gate("s00000001")
    FaultyFileSystem.reset(gate)
    saver.begin(1, state, {}, {})
    assert gate.reached.wait(WAIT)
    threading.Timer(0.05, gate.open).start()
    with pytest.raises(CheckpointError, match="given up for something better"):
        saver.give_up("given up for something better")
    saver.begin(2, state, {}, {})
    finish(saver)
    assert steps() == [2]


def test_no_time_left_ends_the_waiting() -> None:
    state = {"w": torch.ones(10)}
    saver = opened(state)
    gate = Gate("s00000001")
    FaultyFileSystem.reset(gate)
    saver.begin(1, state, {}, {})
    assert gate.reached.wait(WAIT)
    left = iter([0.01, 0.01, -1.0, -1.0, -1.0, -1.0])
    with pytest.raises(CheckpointError, match="no time left to finish it"):
        saver.finish(left=lambda: next(left))
    gate.open()
    assert saver.tidy(WAIT)


def test_a_fenced_save_tells_to_leave() -> None:
    state = {"w": torch.ones(10)}
    saver = opened(state)
    saver.begin(1, state, {}, {})
    finish(saver)
    opened({"w": torch.zeros(10)})
    saver.begin(2, state, {}, {})
    with pytest.raises(FencedError, match="generation 2 has taken over"):
        saver.finish()
    saver.tidy()
    assert steps() == [1]


def test_much_to_write_goes_up_in_several_packs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SPLIT_BYTES", 4000)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)  # hashes are taken by several threads, too
    meet = threading.Barrier(3, timeout=WAIT)

    def together(number: int, kind: str, path: str) -> None:
        if kind == "create" and path.endswith(".pack"):
            meet.wait()

    state = {"m": {str(i): torch.randn(1000) for i in range(3)}}
    saver = opened(state, uploads=3, compression=0)
    FaultyFileSystem.reset(together)
    saver.begin(1, state, {}, {})
    assert finish(saver).bytes == 12_000
    names = [n.rpartition("/")[2] for n in RunStore(Location(URI)).location.names("packs")]
    assert names == ["rank-0000-1.pack", "rank-0000-2.pack", "rank-0000.pack"]
    loaded = {"m": {str(i): torch.zeros(1000) for i in range(3)}}
    opened(loaded)
    assert all(torch.equal(loaded["m"][k], state["m"][k]) for k in loaded["m"])


def test_one_failing_pack_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SPLIT_BYTES", 4000)

    def broken(number: int, kind: str, path: str) -> None:
        if kind == "create" and "rank-0000-2" in path:
            raise PermissionError(13, "Access Denied")

    state = {"m": {str(i): torch.randn(1000) for i in range(3)}}
    saver = opened(state, uploads=3)
    FaultyFileSystem.reset(broken)
    saver.begin(1, state, {}, {})
    with pytest.raises(CheckpointError, match=r"rank-0000-2\.pack: cannot be written: Access Denied"):
        saver.finish()
    saver.tidy()
    assert RunStore(Location(URI)).location.names("packs") == []
