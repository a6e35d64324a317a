"""A small part of bench/stops: a process ends at operations on its store, in every kind of work.

And that it would notice: where a store or a writer does not keep to the rules, something is lost.
"""

from __future__ import annotations

import itertools

import pytest

from aurl_trainer.store import tags
from bench.stops.trial import Trial, trials
from bench.stops.works import WORKS
from tests.unit.trainer.store.faulty import FaultyFileSystem


def lost(seed: int, work: str, most: int = 20) -> list[Trial]:
    found = list(itertools.islice(trials(seed, [work]), most))
    assert found, f"no process ended while doing {work}"
    return [t for t in found if t.problems]


@pytest.mark.parametrize("work", WORKS)
def test_after_an_end_at_any_operation_nothing_is_lost(work: str) -> None:
    assert not (bad := lost(3, work)), "\n".join(map(str, bad))


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
