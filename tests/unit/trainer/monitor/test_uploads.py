"""What a pod keeps beside its checkpoints: all of it, as it grows, at a cost that does not grow with it."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurl_trainer.contract import Env
from aurl_trainer.monitor import uploads as room
from aurl_trainer.monitor.record_files import PART_BYTES
from aurl_trainer.monitor.records import RecordWriter
from aurl_trainer.monitor.uploads import Uploads, uploading
from aurl_trainer.store.location.place import Location
from tests.unit.trainer.store.faulty import FaultyFileSystem

PLACE = "faulty://bucket/run"


@pytest.fixture
def sent() -> Iterator[list[str]]:
    """Names of the objects that are put, as they are put."""
    names: list[str] = []

    def note(number: int, kind: str, path: str) -> None:
        if kind == "put":
            names.append(path.partition("/bucket/run/")[2])

    FaultyFileSystem.clear()
    FaultyFileSystem.reset(note)
    yield names
    FaultyFileSystem.clear()


def kept(name: str) -> bytes:
    return Location(PLACE).get(name)


def uploads(run: Path) -> Uploads:
    return Uploads(Location(PLACE), run, "worker-0-0")


def test_records_that_grow_are_kept_part_by_part(tmp_path: Path, sent: list[str]) -> None:
    ids, sizes = list(range(20_000)), []
    keeping = uploads(tmp_path)
    with RecordWriter(tmp_path / "records", 1, 0) as records:
        for step in range(1, 41):
            records.write("audit", step=step, ids=ids)
            sent.clear()
            keeping.look()
            sizes.append(sum(len(kept(name)) for name in sent))
    written = {p.name: p.read_bytes() for p in (tmp_path / "records").iterdir()}
    assert sum(map(len, written.values())) > 4 * PART_BYTES, "too few records for this test"
    assert {name: kept(f"records/{name}") for name in written} == written, "not all that was written is kept"
    assert max(sizes) <= PART_BYTES + 2 * len(str(ids)), "one look sends more than the part that is written"


def test_what_has_not_changed_is_not_sent_again(tmp_path: Path, sent: list[str]) -> None:
    keeping = uploads(tmp_path)
    with RecordWriter(tmp_path / "records", 1, 0) as records:
        records.write("end", step=1, reason="finished")
    (tmp_path / "samples" / "step-1").mkdir(parents=True)
    (tmp_path / "samples" / "step-1" / "a.mid").write_bytes(b"MThd")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "rank-0.log").write_text("trained\n")
    keeping.look()
    assert sorted(sent) == [
        "logs/worker-0-0.log",
        "records/gen-000001-rank-0000.jsonl",
        "samples/step-1/a.mid",
    ]
    assert kept("logs/worker-0-0.log") == b"trained\n"
    sent.clear()
    keeping.look()
    assert sent == []


def refuse(refused: str) -> None:
    """From now on the store takes nothing whose name ends so."""

    def fault(number: int, kind: str, path: str) -> None:
        if kind == "put" and path.endswith(refused):
            raise PermissionError("not now")

    FaultyFileSystem.reset(fault)


def a_run(folder: Path) -> None:
    """Records of two generations, and a log."""
    for generation in (1, 2):
        with RecordWriter(folder / "records", generation, 0) as records:
            records.write("end", step=generation, reason="finished")
    log_of(folder, "rank-0.log", b"trained\n", 1.0)


def test_what_could_not_be_sent_is_sent_again_although_it_has_not_changed(
    tmp_path: Path, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    a_run(tmp_path)
    keeping = uploads(tmp_path)
    refuse("")
    keeping.look()
    keeping.look()
    assert Location(PLACE).names("") == []
    assert caplog.text.count("not now") == 1, "it is said once"
    FaultyFileSystem.reset()
    keeping.look()
    assert len(Location(PLACE).names("records")) == 2, "a file that failed once is never sent again"
    assert kept("logs/worker-0-0.log") == b"trained\n", "nor is a log"


def test_what_cannot_be_sent_keeps_nothing_else_from_being_sent(tmp_path: Path, sent: list[str]) -> None:
    a_run(tmp_path)
    refuse("gen-000001-rank-0000.jsonl")
    uploads(tmp_path).look()
    names = Location(PLACE).names("")
    assert names == ["logs/worker-0-0.log", "records/gen-000002-rank-0000.jsonl"]


def log_of(run: Path, name: str, text: bytes, at: float, hole: int = 0) -> None:
    """A log of `text` behind a `hole` of so many bytes, last written `at`."""
    path = run / "logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.seek(hole)
        file.write(text)
    os.utime(path, (at, at))


def test_the_tail_of_a_long_log_costs_no_more_than_the_tail(tmp_path: Path, sent: list[str]) -> None:
    log_of(tmp_path, "rank-0.log", b"the end\n", 1.0, hole=2**28)
    keeping = uploads(tmp_path)
    tracemalloc.start()
    try:
        keeping.look()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    tail = kept("logs/worker-0-0.log")
    assert len(tail) == room.TAIL_BYTES and tail.endswith(b"the end\n")
    assert peak < 16 * room.TAIL_BYTES, f"{peak} bytes of memory for a tail of {room.TAIL_BYTES}"


def test_the_tail_is_the_last_of_all_logs_together_oldest_first(
    tmp_path: Path, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "TAIL_BYTES", 10)
    log_of(tmp_path, "c.log", b"not read\n", 1.0)
    log_of(tmp_path, "b.log", b"older\n", 2.0)
    log_of(tmp_path, "a.log", b"newer\n", 3.0)
    uploads(tmp_path).look()
    assert kept("logs/worker-0-0.log") == b"der\nnewer\n"


def test_a_run_at_anothers_place_leaves_its_log_beside_that_ones(
    tmp_path: Path, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(Env.UPLOAD, "1")
    monkeypatch.setenv(Env.NODE, "worker-0")
    for run in ("first", "refused"):
        log_of(tmp_path / run, "rank-0.log", run.encode(), 1.0)
        keeping = uploading(PLACE, tmp_path / run, run)
        assert keeping is not None
        keeping.look()
    assert kept("logs/first/worker-0-0.log") == b"first"
    assert kept("logs/refused/worker-0-0.log") == b"refused"
