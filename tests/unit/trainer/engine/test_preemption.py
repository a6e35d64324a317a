"""All ranks decide alike from the summed flags; only those under notice leave."""

from __future__ import annotations

import os
import signal

import pytest

from aurl_trainer.engine.survival.preemption import Decision, Notice, decide


@pytest.mark.parametrize(
    ("own", "notices", "regroups", "expected"),
    [
        (False, 0, 0, Decision.GO_ON),
        (True, 1, 0, Decision.SAVE_AND_LEAVE),
        (False, 1, 0, Decision.SAVE_AND_REJOIN),
        (False, 0, 2, Decision.SAVE_AND_REJOIN),
        (True, 1, 2, Decision.SAVE_AND_LEAVE),
    ],
)
def test_decision(own: bool, notices: float, regroups: float, expected: Decision) -> None:
    assert decide(own, notices, regroups) is expected


def test_a_notice_that_came_after_the_reduction_waits_for_the_next_step() -> None:
    assert decide(True, 0, 0) is Decision.GO_ON, "the others do not know of it yet"


def test_sigterm_only_sets_the_flag() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        notice = Notice(grace=60.0).listen()
        assert notice.left > 1e9, "without a notice there is time for anything"
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.given
        assert 5.0 < notice.left < 59.0, "leaving takes a moment, too"
    finally:
        signal.signal(signal.SIGTERM, before)
