"""What follows a save at the store is never waited for by training, and no upload meets it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from aurl_trainer.checkpoint.saving import flight, following
from aurl_trainer.checkpoint.saving.saver import Saver
from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.location.place import DELETERS, Location
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.checkpoint import small
from tests.unit.trainer.checkpoint.small import checkpointer
from tests.unit.trainer.store.faulty import FaultyFileSystem

URI = "faulty://following"
opened, steps = partial(small.opened, URI), partial(small.steps, URI)
WAIT = 30.0
ONE = KeepConfig(latest=1, best=0, grace_seconds=0)


class Held:
    """Holds the store up at one kind of operation until it is opened, and keeps what came after that."""

    def __init__(self, kind: str, text: str) -> None:
        self._kind, self._text = kind, text
        self._open = threading.Event()
        self.reached = threading.Event()
        self.since: list[str] = []
        self.threads: set[str] = set()
        FaultyFileSystem.reset(self)

    def __call__(self, number: int, kind: str, path: str) -> None:
        if self.reached.is_set():
            self.since.append(f"{kind} {path}")
        self.threads.add(threading.current_thread().name)
        if kind == self._kind and self._text in path and not self._open.is_set():
            self.reached.set()
            assert self._open.wait(WAIT), "nobody opened the gate"

    def open(self) -> None:
        self._open.set()

    def first(self, text: str) -> int:
        """The place of the first operation with this text."""
        return next(n for n, operation in enumerate(self.since) if text in operation)


@pytest.fixture(autouse=True)
def empty_store() -> Iterator[None]:
    FaultyFileSystem.clear()
    yield
    FaultyFileSystem.clear()


def save(saver: Saver, *numbers: int) -> None:
    """Whole saves, with what follows them."""
    for step in numbers:
        saver.begin(step, {"w": torch.full((10,), float(step))}, {}, {})
        assert saver.finish() is not None
        saver.tidy()


def retaining(saver: Saver, step: int) -> Held:
    """Retention after the save of `step` hangs at its first operation."""
    held = Held("put", "removals/")
    saver.begin(step, {"w": torch.full((10,), float(step))}, {}, {})
    assert saver.finish() is not None
    assert held.reached.wait(WAIT), "there was no retention"
    return held


def test_a_save_is_copied_while_retention_goes_on_and_uploaded_afterwards() -> None:
    saver = opened({}, keep=ONE)
    save(saver, 1)
    held = retaining(saver, 2)
    state = {"w": torch.full((10,), 3.0)}
    saver.begin(3, state, {}, {})
    state["w"].zero_()
    signals = saver.signals()
    assert signals == (1.0, 0.0, 1.0, 0.0), "retention was waited for"
    assert saver.heard(*signals) is None and saver.under_way == 3
    assert not [o for o in held.since if "s00000003" in o], "it was uploaded into a pass of retention"
    assert saver.seconds_under_way == 0.0, "what a save may take is judged by this"
    held.open()
    saved = saver.finish()
    assert saved is not None and saved.step == 3
    saver.tidy()
    assert steps() == [3] and held.first("s00000003") > held.first("delete /following/removals")
    loaded = {"w": torch.zeros(10)}
    opened(loaded)
    assert torch.equal(loaded["w"], torch.full((10,), 3.0)), "what was copied is not what was"


def test_what_follows_is_told_until_it_has_ended() -> None:
    saver = opened({}, keep=ONE)
    assert saver.heard(*saver.signals()) is None and saver.following is None
    save(saver, 1)
    held = retaining(saver, 2)
    saver.heard(*saver.signals())
    assert saver.following == "what follows the save of step 2"
    held.open()
    saver.tidy()
    saver.heard(*saver.signals())
    assert saver.following is None


def test_a_store_that_hangs_costs_saves_and_never_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    saver = opened({}, keep=ONE, deadline=600)
    save(saver, 1)
    held = retaining(saver, 2)
    saver.begin(3, {"w": torch.ones(10)}, {}, {})
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + 1000)
    monkeypatch.setattr(flight, "time", later)
    monkeypatch.setattr(following, "time", later)
    with pytest.raises(
        CheckpointError, match=r"600 s, .*: what follows the save of step 2 hangs in the store"
    ):
        saver.finish()
    for step in (4, 5):
        with pytest.raises(CheckpointError, match="what follows the save of step 2 still hangs in the store"):
            saver.begin(step, {"w": torch.ones(10)}, {}, {})
    saver.heard(*saver.signals())
    assert saver.following is None, "a rule that leaves saves out would hide that none can be made any more"
    monkeypatch.undo()
    held.open()
    saver.tidy()
    save(saver, 6)
    assert steps() == [6]


def failing_commit(saver: Saver, step: int) -> None:
    """Its packs are there, its manifest is refused."""

    def refused(number: int, kind: str, path: str) -> None:
        if kind == "put" and "manifests/" in path:
            raise PermissionError("not now")

    FaultyFileSystem.reset(refused)
    saver.begin(step, {"w": torch.full((10,), float(step))}, {}, {})
    with pytest.raises(CheckpointError, match="not now"):
        saver.finish()
    saver.tidy()


def test_after_a_failed_commit_what_it_left_goes_in_a_thread_and_before_the_upload() -> None:
    saver = opened({}, keep=ONE)
    save(saver, 1)
    failing_commit(saver, 2)
    assert len(RunStore(Location(URI)).pack_folders()) == 2, "its manifest may still arrive"
    held = Held("delete", "s00000002")
    saver.begin(3, {"w": torch.full((10,), 3.0)}, {}, {})
    assert held.reached.wait(WAIT), "what the failed save left was not swept"
    saver.heard(*saver.signals())
    assert not [o for o in held.since if "s00000003" in o], "what fills the disk has to go before the upload"
    held.open()
    saved = saver.finish()
    assert saved is not None
    saver.tidy()
    assert threading.current_thread().name not in held.threads, "training did the store's work"
    assert steps() == [3]


def test_opening_sweeps_in_a_thread() -> None:
    saver = opened({}, keep=ONE)
    save(saver, 1)
    failing_commit(saver, 2)
    held = Held("delete", "s00000002")
    again = checkpointer(URI, keep=ONE)
    again.open({"w": torch.zeros(10)})
    assert held.reached.wait(WAIT), "what another world left was not swept"
    held.open()
    save(again.saver, 3)
    assert steps() == [3] and len(RunStore(Location(URI)).pack_folders()) == 1


def test_when_all_leave_retention_stops_for_the_last_save() -> None:
    first, last = 1, DELETERS + 3
    saver = opened({}, keep=KeepConfig(latest=last, grace_seconds=0))
    save(saver, *range(first, last + 1))
    saver = opened({"w": torch.zeros(10)}, keep=ONE)
    held = Held("delete", "manifests/")
    saver.begin(last + 1, {"w": torch.full((10,), 5.0)}, {}, {})
    assert saver.finish() is not None
    assert held.reached.wait(WAIT)
    saver.hurry()
    saver.begin(last + 2, {"w": torch.full((10,), 6.0)}, {}, {})
    held.open()
    assert saver.finish() is not None
    before = held.since[: held.first(f"s{last + 2:08}")]
    removed = [o for o in before if o.startswith("delete") and "removals" not in o]
    under_way = DELETERS - 1  # besides the one that was held first
    assert len(removed) <= under_way, f"retention went on: {removed}"
    assert [o for o in before if o.startswith("delete") and "removals" in o], (
        "a tag waits for what is announced"
    )
    saver.tidy()
    assert steps() == [last + 2], "what was left is removed after the last save"


def test_when_all_leave_nothing_is_swept_before_the_last_save() -> None:
    saver = opened({}, keep=ONE)
    save(saver, 1)
    failing_commit(saver, 2)
    held = Held("delete", "s00000002")
    saver.hurry()
    saver.begin(3, {"w": torch.full((10,), 3.0)}, {}, {})
    assert saver.signals()[2] == 0.0, "a sweep stands before the last save"
    assert saver.finish() is not None
    held.open()
    saver.tidy()
    assert steps() == [3] and len(RunStore(Location(URI)).pack_folders()) == 1


def test_a_last_save_behind_a_store_that_hangs_ends_with_the_time() -> None:
    saver = opened({}, keep=ONE)
    save(saver, 1)
    held = retaining(saver, 2)
    saver.hurry()
    saver.begin(3, {"w": torch.ones(10)}, {}, {})
    left = iter([1.0, 1.0, *[0.0] * 9])
    with pytest.raises(CheckpointError, match="there was no time left to finish it"):
        saver.finish(left=lambda: next(left))
    held.open()
    saver.tidy()


def test_a_save_given_up_while_it_is_held_ends_at_once() -> None:
    saver = opened({}, keep=ONE)
    save(saver, 1)
    held = retaining(saver, 2)
    saver.begin(3, {"w": torch.ones(10)}, {}, {})
    with pytest.raises(CheckpointError, match="for something better"):
        saver.give_up("for something better")
    saver.begin(4, {"w": torch.ones(10)}, {}, {})
    held.open()
    assert saver.finish() is not None
    saver.tidy()
    assert steps() == [4]
