"""A small part of bench/stops: a process ends at operations on its store, in every kind of work."""

from __future__ import annotations

import itertools

import pytest

from bench.stops.trial import trials
from bench.stops.works import WORKS


@pytest.mark.parametrize("work", WORKS)
def test_after_an_end_at_any_operation_nothing_committed_is_lost(work: str) -> None:
    found = list(itertools.islice(trials(3, [work]), 25))
    assert found, f"no process ended while doing {work}"
    lost = [str(t) for t in found if t.problems]
    assert not lost, "\n".join(lost)
