"""A preparation may take as long as it gets on, and no longer."""

from __future__ import annotations

import pytest

from aurl_trainer.agent.preparation import prepare

pytestmark = pytest.mark.processes


def test_one_that_gets_on_may_take_longer_than_the_limit() -> None:
    steps = 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do touch "$AURL_ALIVE"; sleep 0.5; done'
    assert prepare(["sh", "-c", steps], 4.0, lambda: False).startswith("prepared in ")


def test_one_that_gets_on_no_longer_is_stopped() -> None:
    said = prepare(["sh", "-c", 'touch "$AURL_ALIVE"; sleep 600'], 2.0, lambda: False)
    assert said.endswith("made no progress for 2 s: the ranks prepare")
