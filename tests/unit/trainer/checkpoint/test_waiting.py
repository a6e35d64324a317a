"""Opening the checkpoints of a store that is away: waited for, by all ranks alike, and not for ever."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from aurl_trainer.checkpoint import waiting
from aurl_trainer.checkpoint.agreement import Ranks
from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.checkpoint.waiting import Waiting
from aurl_trainer.config.checkpoint import CheckpointConfig
from aurl_trainer.errors import CheckpointError, UnavailableError
from aurl_trainer.store.location import place
from aurl_trainer.store.location.patience import Patience
from tests.unit.trainer.checkpoint.ranks.pool import RankPool
from tests.unit.trainer.checkpoint.small import IDENTITY, make, state
from tests.unit.trainer.store.faulty import FaultyFileSystem


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One try at a time, and hardly a pause."""
    monkeypatch.setattr(place, "Patience", functools.partial(Patience, attempts=1))
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.001)
    FaultyFileSystem.clear()
    yield
    FaultyFileSystem.clear()


def away(tries: int) -> None:
    left = [tries]

    def fault(number: int, kind: str, path: str) -> None:
        if kind in ("put", "create", "write") and left[0] > 0:
            left[0] -= 1
            raise ConnectionResetError(104, "Connection reset by peer")

    FaultyFileSystem.reset(fault)


def make_checkpointer(wait: Waiting | None) -> Checkpointer:
    return Checkpointer(
        "faulty://run",
        run="r",
        fingerprint=IDENTITY,
        settings=CheckpointConfig(),
        rank=0,
        world=1,
        waiting=wait,
    )


def test_a_store_that_comes_back_is_waited_for_and_that_is_said_once() -> None:
    said: list[str] = []
    beats: list[int] = []
    ours = make_checkpointer(Waiting(True, lambda: beats.append(1), said.append))
    away(3)
    ours.probe()
    assert len(said) == 2, f"expected to be told of the beginning and the end, found {said}"
    assert said[0].startswith("the store does not answer, waits up to 300 s for it: faulty://run/probes/")
    assert said[1].startswith("the store answers again")
    assert len(beats) >= 3, "a rank that waits must beat"
    away(2)
    assert ours.open(state(*make(1))).restored is None
    ours.saver.tidy()


def test_a_store_that_stays_away_is_given_up_sooner_at_a_first_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waiting.FIRST_SECONDS < 60 < waiting.TRAINED_SECONDS
    monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.0)
    away(2)
    said: list[str] = []
    with pytest.raises(UnavailableError, match="Connection reset by peer"):
        make_checkpointer(Waiting(False, lambda: None, said.append)).probe()
    assert said == []
    away(2)
    make_checkpointer(Waiting(True, lambda: None, said.append)).probe()


def test_what_no_waiting_mends_is_told_at_once() -> None:
    def denied(number: int, kind: str, path: str) -> None:
        raise PermissionError(13, "Permission denied")

    FaultyFileSystem.reset(denied)
    with pytest.raises(CheckpointError, match="Permission denied"):
        make_checkpointer(Waiting(True, lambda: None, print)).probe()
    assert FaultyFileSystem.operations <= 2, "expected the write of one probe, and its removal"


def _wait(rank: int, world: int) -> tuple[int, list[str]]:
    """Rank 0's store is away for two tries; only rank 1 knows that the job has trained before."""
    waiting.FIRST_PAUSE, waiting.FIRST_SECONDS = 0.001, 0.0
    tries = 0
    said: list[str] = []
    ranks = Ranks(rank, world)

    def probe() -> None:
        if tries < 3:
            raise UnavailableError("away")

    def act() -> int:
        nonlocal tries
        tries += 1
        ranks.first(probe)
        return tries

    return Waiting(rank == 1, lambda: None, said.append).until_answered(act, ranks), said


@pytest.mark.processes
def test_all_ranks_wait_together_when_one_knows_that_the_job_has_trained() -> None:
    pool = RankPool(2)
    try:
        (tries, said), (same, silent) = pool.run(_wait)
    finally:
        pool.close()
    assert (tries, same) == (3, 3)
    assert len(said) == 2 and silent == [], "rank 0 speaks for all"
