"""A small part of bench/stops: a process ends at operations on its store, in every kind of work.

Also over listings that show what was there some operations ago. And that it would notice: where a store or a
writer does not keep to the rules, something is lost.
"""

from __future__ import annotations

import itertools

import pytest

from aurl_trainer.store import tags
from aurl_trainer.store.location import place
from aurl_trainer.store.retention import passes
from bench.stops.trial import Trial, trials
from bench.stops.works import WORKS
from tests.unit.trainer.store.faulty import FaultyFileSystem


def lost(seed: int, work: str, most: int = 20, *, lag: int = 0, each: int = 1) -> list[Trial]:
    found = list(itertools.islice(trials(seed, [work], lag), 0, most * each, each))
    assert found, f"no process ended while doing {work}"
    return [t for t in found if t.problems]


@pytest.mark.parametrize("work", WORKS)
def test_after_an_end_at_any_operation_nothing_is_lost(work: str) -> None:
    assert not (bad := lost(3, work)), "\n".join(map(str, bad))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at a listing again at once: only operations pass, not seconds."""
    monkeypatch.setattr(place, "LOOKS", (0.0, 0.0))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("work", WORKS)
def test_nor_where_listings_lag_behind(work: str) -> None:
    assert not (bad := lost(3, work, 5, lag=12, each=7)), "\n".join(map(str, bad))


@pytest.mark.usefixtures("impatient")
def test_a_lag_without_that_care_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(place.Location, "publish", place.Location.put)
    late = trials(3, ["tag"], lag=12)
    assert any("production was set again, and names None" in str(t) for t in late), "nothing is lost"


def test_a_tag_that_went_before_it_came_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    write = tags._write

    def delete_first(store: tags.RunStore, tag: str, checkpoint: tags.CheckpointName | None) -> None:
        if checkpoint is not None:
            store.location.delete([m.object for m in store.tag_marks() if m.tag == tag])
        write(store, tag, checkpoint)

    monkeypatch.setattr(tags, "_write", delete_first)
    assert any("production names None" in str(t) for t in lost(3, "tag"))


def test_a_manifest_written_in_two_parts_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: FaultyFileSystem, path: str, value: bytes) -> None:
        super(FaultyFileSystem, self).pipe_file(path, value[: len(value) // 2])
        self._operation("half a put", path)

    monkeypatch.setattr(FaultyFileSystem, "_half", half)
    assert any("digest does not match" in str(t) for t in lost(3, "save", 60))


@pytest.mark.parametrize("work", ["open", "music"])
def test_what_nobody_sweeps_would_be_noticed(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "delete_strays", lambda location: None)
    assert any("music that nobody lists, stay" in str(t) for t in lost(3, work))
