"""Trying again: how often, how long, and for what."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aurl_trainer.errors import CheckpointError, UnavailableError
from aurl_trainer.store.location.patience import Patience
from aurl_trainer.store.location.place import Location
from tests.unit.trainer.store.faulty import FaultyFileSystem

QUICK = Patience(attempts=5, seconds=60.0, first=0.001, longest=0.002)


class Flaky:
    """Raises `error` the first `failures` times; counts the calls."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self, seconds: float) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.calls


def test_a_passing_error_is_tried_again_until_it_passes() -> None:
    flaky = Flaky(4, ConnectionResetError(104, "Connection reset by peer"))
    assert QUICK.persist(flaky) == 5, "expected the fifth try to succeed"


def test_the_number_of_tries_is_bounded_and_told() -> None:
    flaky = Flaky(99, ConnectionResetError(104, "Connection reset by peer"))
    with pytest.raises(ConnectionResetError) as error:
        QUICK.persist(flaky)
    assert flaky.calls == 5
    assert error.value.__notes__ == ["gave up after 5 tries in 0 s"]


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Access Denied"), FileNotFoundError("x"), OSError(28, "full"), ValueError("x")],
)
def test_a_final_error_is_not_tried_again(error: Exception) -> None:
    flaky = Flaky(99, error)
    with pytest.raises(type(error)):
        QUICK.persist(flaky)
    assert flaky.calls == 1, f"expected one try, found {flaky.calls}"


def test_no_wait_reaches_beyond_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(99, TimeoutError("slow"))
    patience = Patience(attempts=99, seconds=100.0, first=1000.0, longest=1000.0)
    # The wait is drawn from 0 to 1000 s: its middle, so that no chance is in it.
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)
    with pytest.raises(TimeoutError):
        patience.within(time.monotonic() + 60.0).persist(flaky)
    assert flaky.calls == 1, "a wait of 500 s was begun within a deadline of 60 s"


def test_waits_are_spread_over_the_whole_interval_and_grow() -> None:
    from tenacity import RetryCallState, wait_random_exponential

    wait = wait_random_exponential(multiplier=Patience().first, max=Patience().longest)
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    for attempt, bound in ((1, 0.5), (2, 1.0), (3, 2.0), (9, 20.0)):
        state.attempt_number = attempt
        waits = [wait(state) for _ in range(400)]
        assert 0 <= min(waits) < 0.1 * bound and 0.9 * bound < max(waits) <= bound


@pytest.fixture
def stuck() -> Callable[[], int]:
    """A store that never answers; the number of operations it was asked for."""

    def fault(number: int, kind: str, path: str) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    FaultyFileSystem.clear()
    FaultyFileSystem.reset(fault)
    return lambda: FaultyFileSystem.operations


def test_a_store_that_stays_away_is_one_line_that_says_how_long(stuck: Callable[[], int]) -> None:
    place = Location("faulty://run", patience=QUICK)
    with pytest.raises(UnavailableError) as error:
        place.put("m/x", b"1")
    assert stuck() == 5
    assert str(error.value) == (
        "faulty://run/m/x: cannot be written: Connection reset by peer (gave up after 5 tries in 0 s)"
    )


def test_a_deadline_bounds_every_operation_of_a_place(stuck: Callable[[], int]) -> None:
    place = Location("faulty://run", patience=QUICK)
    late = place.until(time.monotonic() - 1.0)
    with pytest.raises(UnavailableError, match="its deadline has passed"):
        late.put("m/x", b"1")
    with pytest.raises(UnavailableError), late.writing("m/y") as file:
        file.write(b"1")
    assert stuck() == 0, "something was begun after the deadline"
    assert late.until(time.monotonic() + 99)._deadline == late._deadline, "a later deadline loosened it"
    FaultyFileSystem.clear()
    place.put("m/x", b"1")
    assert place.get("m/x") == b"1"


def test_on_a_local_disk_nothing_begins_after_the_deadline(tmp_path: Path) -> None:
    place = Location(str(tmp_path))
    place.put("m/x", b"1")
    late = place.until(time.monotonic() - 1.0)
    for act in (
        lambda: late.put("m/y", b"1"),
        lambda: late.writing("m/y").__enter__(),
        lambda: late.get("m/x"),
        lambda: late.delete(["m/x"]),
        lambda: late.names("m"),
    ):
        with pytest.raises(UnavailableError, match="its deadline has passed"):
            act()
    assert place.names("m") == ["x"] and place.get("m/x") == b"1"


def test_a_full_disk_says_what_to_do() -> None:
    def full(number: int, kind: str, path: str) -> None:
        raise OSError(28, "No space left on device")

    FaultyFileSystem.clear()
    FaultyFileSystem.reset(full)
    with pytest.raises(CheckpointError, match="no space is left there; make room there, or give the run"):
        Location("faulty://run", patience=QUICK).put("m/x", b"1")
    assert FaultyFileSystem.operations == 1
    FaultyFileSystem.clear()
