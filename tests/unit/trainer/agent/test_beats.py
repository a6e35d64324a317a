"""Who is missing, who is late, and who is to blame for neither: pure judgements over beats."""

from __future__ import annotations

import pytest

from aurl_trainer.agent.beats import (
    AwakeClock,
    Beat,
    Seen,
    State,
    Watch,
    departed,
    hang_limits,
    late,
    trouble,
)
from aurl_trainer.contract import DEFAULT_HANG_LIMITS, Phase

LIMITS = dict.fromkeys(Phase, 10.0) | {Phase.EVALUATE: 100.0}


def seen(
    state: State = State.RUNNING, *, number: int = 5, silent: float = 0.0, idle: float = 0.0, **where: object
) -> Seen:
    return Seen(Beat(number, state, "worker-1", **where), silent, idle)  # type: ignore[arg-type]


def at(phase: Phase, step: int, idle: float, ticks: int = 0) -> Seen:
    return seen(phase=phase, step=step, idle=idle, ticks=ticks)


def test_a_beat_survives_the_store() -> None:
    beat = Beat(7, State.SUSPECT, "worker-2", Phase.SAVE, 41, 3, 'said "no"')
    assert Beat.from_json(beat.to_json().encode()) == beat


def test_a_silent_peer_is_missing_only_after_the_timeout() -> None:
    assert trouble({"rank/3": seen(silent=9.9)}, 10) is None
    found = trouble({"rank/3": seen(silent=10.0)}, 10)
    assert found is not None
    assert "rank 3" in found
    assert "worker-1" in found


def test_a_rank_that_has_not_begun_is_not_missing() -> None:
    assert trouble({"rank/3": seen(number=0, silent=1000)}, 10) is None


def test_who_said_goodbye_is_not_missing() -> None:
    for state in (State.LEFT, State.DONE):
        peers = {"agent/1": seen(state, silent=1000)}
        assert trouble(peers, 10) is None
        assert departed(peers) is not None, "but it explains a collective that failed"


def test_the_failed_one_is_named_before_those_that_it_took_along() -> None:
    peers = {"rank/0": seen(State.BROKEN), "rank/1": seen(silent=50), "rank/2": seen(State.FAILED)}
    assert (trouble(peers, 10) or "").startswith("rank 2")


def test_those_that_wait_are_not_late() -> None:
    ranks = {0: at(Phase.SYNC, 7, 500), 1: at(Phase.STEP, 7, 500), 2: at(Phase.SYNC, 7, 500)}
    assert late(0, ranks, LIMITS) is None
    assert late(2, ranks, LIMITS) is None
    assert "2 others wait" in (late(1, ranks, LIMITS) or "")


def test_a_long_evaluation_makes_nobody_late() -> None:
    ranks = {0: at(Phase.EVALUATE, 7, 99), 1: at(Phase.SYNC, 7, 99)}
    assert late(0, ranks, LIMITS) is None
    assert late(1, ranks, LIMITS) is None


@pytest.mark.parametrize("waiting", [Phase.SAVE, Phase.STEP, Phase.END])
def test_those_that_wait_for_one_that_writes_music_are_not_late(waiting: Phase) -> None:
    ranks = {0: at(Phase.EVALUATE, 7, 9, ticks=5), 1: at(waiting, 7, 99_999, ticks=1)}
    assert late(1, ranks, LIMITS) is None, "rank 0 gets on, and has its own limit"
    assert late(0, ranks | {0: at(Phase.EVALUATE, 7, 99_999, ticks=5)}, LIMITS) is not None


def test_every_phase_has_its_place_among_the_others() -> None:
    for phase in Phase:
        assert late(0, {0: at(phase, 7, 99_999)}, LIMITS) is not None, phase


def test_the_one_behind_in_the_same_phase_is_late() -> None:
    ranks = {0: at(Phase.EVALUATE, 7, 200, ticks=9), 1: at(Phase.EVALUATE, 7, 200, ticks=4)}
    assert late(0, ranks, LIMITS) is None
    assert late(1, ranks, LIMITS) is not None


def test_if_all_wait_forever_exactly_one_answers_for_it() -> None:
    ranks = {r: at(Phase.SYNC, 7, 500) for r in range(4)}
    assert [r for r in ranks if late(r, ranks, LIMITS) is not None] == [0]


def test_a_rank_that_has_not_begun_holds_the_others_up() -> None:
    ranks = {0: at(Phase.START, 0, 500), 1: seen(number=0, idle=500)}
    assert late(0, ranks, LIMITS) is None


def test_time_lost_while_frozen_counts_as_one_tick() -> None:
    now = [100.0]
    clock = AwakeClock(2.0, lambda: now[0])
    now[0] += 1.0
    assert clock.tick() == 1.0
    now[0] += 3600.0
    assert clock.tick() == 3.0


def test_a_watch_tells_silence_from_idleness() -> None:
    watch = Watch()
    first = Beat(1, State.RUNNING, "n", Phase.STEP, 4)
    watch.look({"rank/0": first}, 0.0)
    again = Beat(2, State.RUNNING, "n", Phase.STEP, 4)
    found = watch.look({"rank/0": again}, 5.0)["rank/0"]
    assert (found.silent, found.idle) == (0.0, 5.0), "it beats, but does not move"
    moved = Beat(3, State.RUNNING, "n", Phase.SYNC, 4)
    found = watch.look({"rank/0": moved}, 6.0)["rank/0"]
    assert (found.silent, found.idle) == (0.0, 0.0)
    found = watch.look({"rank/0": moved}, 9.0)["rank/0"]
    assert (found.silent, found.idle) == (3.0, 3.0)


def test_given_limits_are_laid_over_the_defaults() -> None:
    limits = hang_limits('{"step": 5}')
    assert limits[Phase.STEP] == 5.0
    assert limits[Phase.SAVE] == DEFAULT_HANG_LIMITS[Phase.SAVE]
