"""What is read of generations before: whole lines of the newest, also from beside the checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aurl_trainer.engine.resume import past as room
from aurl_trainer.engine.resume.past import read_past
from aurl_trainer.monitor import records
from aurl_trainer.monitor.records import RecordWriter
from aurl_trainer.store.location.place import Location
from tests.unit.trainer.store.faulty import FaultyFileSystem


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    FaultyFileSystem.clear()
    yield
    FaultyFileSystem.clear()


def generation(folder: Path, number: int, steps: range, world: int = 2, rank: int = 0) -> Path:
    with RecordWriter(folder, number, rank) as writer:
        writer.write("start", generation=number, rank=rank, world=world, total_steps=99)
        writer.write("setup", versions={"PyTorch": "2.13.0", "Platform": "of no matter"})
        for step in steps:
            loss = number + step / 100
            writer.write("step", step=step, loss=loss, lr=0.1, tokens=1, seconds=0.1, samples=f"8:{step}:0")
        return writer.path


def test_each_step_is_as_the_newest_generation_before_wrote_it(tmp_path: Path) -> None:
    generation(tmp_path, 1, range(1, 9), world=3)
    generation(tmp_path, 2, range(5, 7))
    generation(tmp_path, 3, range(6, 99), world=1)
    generation(tmp_path, 2, range(90, 95), rank=1)
    found = read_past(tmp_path, None, 3)
    assert {s: d.generation for s, d in found.steps.items()} == {
        **dict.fromkeys([1, 2, 3, 4, 7, 8], 1),
        5: 2,
        6: 2,
    }
    assert (found.steps[8].world, found.steps[5].world) == (3, 2)
    assert found.steps[5].loss == 2.05 and found.steps[5].samples == "8:5:0"
    assert found.steps[5].surroundings == {"PyTorch": "2.13.0"}, "a kernel's version changes no bit"
    assert found.furthest == 8 and found.problem is None


def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    path = generation(tmp_path, 1, range(1, 5))
    path.write_bytes(path.read_bytes()[:-7])
    assert sorted(read_past(tmp_path, None, 2).steps) == [1, 2, 3]


def test_no_more_is_read_than_the_ends_of_the_newest_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "TAIL_BYTES", 1000)
    monkeypatch.setattr(room, "HEAD_BYTES", 400)
    for number in range(1, 12):
        generation(tmp_path, number, range(number, 400 if number == 11 else number + 1), world=number)
    found = read_past(tmp_path, None, 12).steps
    assert 1 not in found and 3 not in found, "older generations than the newest eight"
    assert found[4].generation == 4
    assert 399 in found and 390 not in found and found[399].world == 11, "the end, and whose it is"


def test_what_another_pod_wrote_is_found_beside_the_checkpoints(tmp_path: Path) -> None:
    place = Location("faulty://bucket/run")
    for number, steps in ((1, range(1, 5)), (2, range(5, 7))):
        path = generation(tmp_path / "other", number, steps)
        place.put(f"records/{path.name}", path.read_bytes())
    generation(tmp_path / "here", 2, range(5, 9))
    found = read_past(tmp_path / "here", place, 3)
    assert sorted(found.steps) == list(range(1, 9)), "its own disk knows more of generation 2"


def parts(folder: Path, monkeypatch: pytest.MonkeyPatch, each: int) -> None:
    """Generations 1 and 2 in parts of at most `each` bytes: the second of many."""
    monkeypatch.setattr(records, "PART_BYTES", each)
    generation(folder, 1, range(1, 5), world=3)
    generation(folder, 2, range(5, 105), world=2)
    assert len(list(folder.glob("gen-000002-*"))) > 10


def test_what_is_in_parts_is_read_as_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Location("faulty://bucket/run")
    parts(tmp_path, monkeypatch, 1000)
    for path in tmp_path.iterdir():
        place.put(f"records/{path.name}", path.read_bytes())
    for found in (read_past(tmp_path, None, 3), read_past(tmp_path / "nothing", place, 3)):
        assert sorted(found.steps) == list(range(1, 105))
        assert {found.steps[s].generation for s in range(5, 105)} == {2}
        assert found.steps[104].world == 2, "the first part says what world it was"


def test_of_parts_no_more_is_read_than_the_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, read = Location("faulty://bucket/run"), []
    parts(tmp_path, monkeypatch, 1000)
    for path in tmp_path.iterdir():
        place.put(f"records/{path.name}", path.read_bytes())
    monkeypatch.setattr(room, "TAIL_BYTES", 1500)
    monkeypatch.setattr(room, "HEAD_BYTES", 400)
    get = FaultyFileSystem.cat_file

    def noted(self: FaultyFileSystem, path: str, start: int | None = None, end: int | None = None) -> bytes:
        data: bytes = get(self, path, start=start, end=end)
        read.append((path.rpartition("/")[2], len(data)))
        return data

    monkeypatch.setattr(FaultyFileSystem, "cat_file", noted)
    found = read_past(tmp_path / "nothing", place, 3)
    assert 104 in found.steps and 60 not in found.steps and found.steps[104].world == 2
    second = [size for name, size in read if name.startswith("gen-000002")]
    assert sum(second) <= 1900 and len(second) <= 4, read


def test_a_store_that_does_not_answer_leaves_less_to_compare_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation(tmp_path, 1, range(1, 3))

    def dead(self: FaultyFileSystem, path: str, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(FaultyFileSystem, "ls", dead)
    found = read_past(tmp_path, Location("faulty://bucket/run"), 2)
    assert sorted(found.steps) == [1, 2]
    assert found.problem is not None and "no route to host" in found.problem


def test_notices_of_the_past_are_told_again(tmp_path: Path) -> None:
    with RecordWriter(tmp_path, 1, 0) as writer:
        writer.write("noted", id="damaged/v1", cause="checkpoint-damaged", message="m", checkpoint="v1")
        writer.write("noted", id="x", cause="of a newer version", message="m")
    (noted,) = read_past(tmp_path, None, 2).noted
    assert (noted.id, noted.cause, noted.checkpoint) == ("damaged/v1", "checkpoint-damaged", "v1")


def test_there_may_be_no_past_at_all(tmp_path: Path) -> None:
    assert read_past(tmp_path / "nothing", None, 1).steps == {}
