"""Looking at a run's directory while it is written, with real files and a real store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aurl_trainer.contract import RunFile
from aurl_trainer.monitor.records import RecordWriter
from aurl_trainer.store.format.names import CheckpointName, Fence, GenerationId
from aurl_trainer.store.location.place import Location
from bench.chaos.victims import Household
from bench.chaos.watch import Watch

NOBODY = Household()
FIRST, SECOND = GenerationId(1, "0000000a"), GenerationId(2, "0000000b")


def take(run: Path, generation: GenerationId) -> RecordWriter:
    Location(str(run / RunFile.CHECKPOINTS)).put(Fence(generation).object, b"{}")
    return RecordWriter(run / RunFile.RECORDS, generation.number, 0)


def begin(records: RecordWriter, generation: GenerationId, resumed: int | None) -> None:
    records.write("start", generation=generation.number, rank=0, world=2, total_steps=9, resumed_from=resumed)


def step(records: RecordWriter, number: int) -> None:
    records.write("audit", step=number, ids=[1], loss=0.5)


def test_a_run_that_has_written_nothing_waits(tmp_path: Path) -> None:
    sight = Watch(tmp_path).look(NOBODY)
    assert (sight.waiting, sight.generation, sight.world) == (True, 0, None)


def test_steps_count_for_their_generation_and_the_furthest_for_all(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    records = take(tmp_path, FIRST)
    assert watch.look(NOBODY).world is None, "taken and not begun"
    begin(records, FIRST, None)
    step(records, 1)
    assert watch.look(NOBODY).step == 1
    step(records, 2)
    step(records, 3)
    begun = take(tmp_path, SECOND)
    begin(begun, SECOND, 1)
    sight = watch.look(NOBODY)
    assert (sight.generation, sight.resumed, sight.step) == (2, 1, 1)
    assert sight.furthest == 3, "what the first generation wrote last is not missed"


def test_evaluations_and_saves_are_taken_note_of(tmp_path: Path) -> None:
    records = take(tmp_path, FIRST)
    begin(records, FIRST, None)
    step(records, 4)
    records.write("evaluation", step=4, val_loss=1.0, tokens=3, seconds=0.1)
    records.write("save", step=4, seconds=0.1, bytes=3, ok=True, message="")
    sight = Watch(tmp_path).look(NOBODY)
    assert (sight.step, sight.evaluated, sight.saved) == (4, 4, 4)


def test_the_next_part_of_the_records_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurl_trainer.monitor.records.PART_BYTES", 300)
    watch = Watch(tmp_path)
    records = take(tmp_path, FIRST)
    begin(records, FIRST, None)
    for number in range(1, 6):
        step(records, number)
        assert watch.look(NOBODY).step == number
    for number in range(6, 21):
        step(records, number)
    assert watch.look(NOBODY).step == 20, "several parts in one look"
    assert len(list((tmp_path / RunFile.RECORDS).iterdir())) > 3, "too few parts for this test"


def test_a_torn_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    records = take(tmp_path, FIRST)
    begin(records, FIRST, None)
    with records.path.open("ab") as file:
        file.write(b'{"kind":"audit","step":')
        file.flush()
        assert watch.look(NOBODY).step == 0
        file.write(b'7,"ids":[]}\n')
    assert watch.look(NOBODY).step == 7


def test_a_strike_waits_for_a_later_generation(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    begin(take(tmp_path, FIRST), FIRST, None)
    assert not watch.look(NOBODY).waiting
    me = Household(ranks=(os.getpid(),))
    watch.struck(me)
    struck = watch.look(me)
    assert (struck.waiting, struck.survivors, struck.ranks) == (True, 1, 0)
    other = watch.look(Household(ranks=(os.getppid(),)))
    assert (other.survivors, other.ranks) == (0, 1), "a rank that was not there at the strike is a new one"
    take(tmp_path, SECOND)
    assert not watch.look(NOBODY).waiting


def test_packs_manifests_and_partial_files_are_told_apart(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    name = CheckpointName(1, 4, FIRST)
    place = Location(str(tmp_path / RunFile.CHECKPOINTS))
    with place.writing(name.pack(0)) as file:
        file.write(b"abc")
    sight = watch.look(NOBODY)
    assert sight.packs == {name: (3,)}
    assert sight.still == frozenset(), "seen once"
    assert watch.look(NOBODY).still == {name}
    partial = tmp_path / RunFile.CHECKPOINTS / "manifests" / f".{name}.json.0123abcd.partial"
    partial.parent.mkdir()
    partial.write_bytes(b"{")
    assert watch.look(NOBODY).partials == {name}
    partial.unlink()
    place.put(name.manifest, b"{}")
    sight = watch.look(NOBODY)
    assert (sight.manifests, sight.partials, sight.removing) == ({name}, frozenset(), False)
    place.delete([name.manifest])
    assert watch.look(NOBODY).removing


def test_a_manifest_counts_as_saved_while_no_later_generation_is_there(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    take(tmp_path, FIRST)
    watch.look(NOBODY)
    place = Location(str(tmp_path / RunFile.CHECKPOINTS))
    place.put(CheckpointName(1, 5, FIRST).manifest, b"{}")
    watch.look(NOBODY)
    watch.look(NOBODY)
    assert watch.saved == {CheckpointName(1, 5, FIRST)}
    place.put(CheckpointName(2, 9, FIRST).manifest, b"{}")
    watch.look(NOBODY)
    take(tmp_path, SECOND)
    watch.look(NOBODY)
    watch.look(NOBODY)
    assert watch.saved == {CheckpointName(1, 5, FIRST)}, "the second may have come after the later generation"
