"""Who prepares music tells that it gets on, and so do those that wait for it; if it hangs, none does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aurl_trainer.data import alive
from aurl_trainer.data.alive import turn
from aurl_trainer.data.prepared import prepare
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.music import SharedMusic
from tests.unit.trainer.data.conftest import Configure, WritePieces


class Count:
    """How often it was told."""

    def __init__(self) -> None:
        self.told = 0

    def __call__(self) -> None:
        self.told += 1


def _eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_every_piece_is_a_sign_of_life(write_pieces: WritePieces, configure: Configure) -> None:
    write_pieces(6)
    first, opened = Count(), Count()
    plain = configure()
    prepare(plain, seed=1, alive=first)
    assert first.told >= 12, "each is read, and written"
    prepare(plain, seed=1, alive=opened)
    assert opened.told == 0, "there was nothing to do"

    bpe = Count()
    prepare(configure(tokenizer={"bpe_vocab_size": 450}), seed=1, alive=bpe)
    assert bpe.told > first.told, "training tokens takes each piece once more"


def test_so_is_every_block_that_is_fetched(
    write_pieces: WritePieces, configure: Configure, tmp_path: Path
) -> None:
    write_pieces(6)
    shared = SharedMusic(Location(str(tmp_path / "run")))
    left, fetched = Count(), Count()
    prepare(configure(), seed=1, alive=left, shared=shared)
    prepare(configure(cache=str(tmp_path / "other")), seed=1, alive=fetched, shared=shared)
    assert left.told > 12 and fetched.told >= 4, "a block of each file"


def test_who_waits_gets_on_as_the_one_it_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "SECONDS", 0.02)
    lock, holder, waiter = tmp_path / "key.lock", Count(), Count()
    entered = threading.Event()

    def wait() -> None:
        with turn(lock, waiter):
            entered.set()

    with turn(lock, holder) as tell:
        thread = threading.Thread(target=wait)
        thread.start()
        for round_ in range(1, 4):

            def told(least: int = round_) -> bool:
                tell()
                return waiter.told >= least

            _eventually(told, "the waiting one does not hear that the other gets on")
        # What was told last may be heard yet.
        time.sleep(0.2)
        before = waiter.told
        time.sleep(0.5)
        assert waiter.told == before, "one that hangs is nobody's progress"
        assert not entered.is_set()
    thread.join(60)
    assert entered.is_set()
    assert holder.told >= 3
