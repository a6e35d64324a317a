"""Records survive what runs go through: kills, full disks, numbers that are none."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aurl_trainer.monitor import records as room
from aurl_trainer.monitor.records import RecordWriter, read_records

STEP = {"loss": 2.5, "lr": 1e-3, "tokens": 4096, "seconds": 0.5}


def test_what_is_written_is_read_in_order_of_generation_and_time(tmp_path: Path) -> None:
    with (
        RecordWriter(tmp_path / "records", 2, 0) as later,
        RecordWriter(tmp_path / "records", 1, 3) as earlier,
    ):
        later.write("step", step=7, **STEP)
        earlier.write("audit", step=6, ids=np.array([4, 5]))
        later.write("end", step=8, reason="preempted")
    records = read_records(tmp_path / "records")
    assert [(r["generation"], r["rank"], r["kind"]) for r in records] == [
        (1, 3, "audit"),
        (2, 0, "step"),
        (2, 0, "end"),
    ]
    assert records[0]["ids"] == [4, 5]
    assert records[1]["loss"] == 2.5 and records[1]["epoch"] is None
    assert [r["kind"] for r in read_records(tmp_path / "records", {"end"})] == ["end"]


def test_a_missing_folder_holds_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path / "nothing") == []


def test_unknown_fields_and_kinds_are_refused(tmp_path: Path) -> None:
    with RecordWriter(tmp_path, 1, 0) as writer:
        with pytest.raises(TypeError, match="colour"):
            writer.write("step", step=1, colour="blue", **STEP)
        with pytest.raises(KeyError, match="stop"):
            writer.write("stop")
    assert read_records(tmp_path) == []


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    with RecordWriter(tmp_path, 1, 0) as writer:
        writer.write("step", step=1, **(STEP | {"loss": float("nan"), "grad_norm": np.float32("inf")}))
    (record,) = read_records(tmp_path)
    assert record["loss"] is None and record["grad_norm"] is None
    assert "NaN" not in writer.path.read_text()


@pytest.mark.parametrize(
    "torn", [b'{"kind":"step","at":1', b'{"kind":"step","at":1}', b"\xff\x00", b"[1]", b"7"]
)
def test_torn_and_foreign_lines_are_skipped(tmp_path: Path, torn: bytes) -> None:
    with RecordWriter(tmp_path, 1, 0) as writer:
        writer.write("step", step=1, **STEP)
    with writer.path.open("ab") as file:
        file.write(torn)
    with RecordWriter(tmp_path, 1, 0) as again:
        again.write("step", step=2, **STEP)
    (tmp_path / "gen-1.jsonl.swp").write_text("{}")
    assert [r["step"] for r in read_records(tmp_path)] == [1, 2]


def test_a_full_disk_costs_records_and_not_the_run(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    writer = RecordWriter(tmp_path, 1, 0)
    writer.path.unlink()
    writer.close()
    writer.path.symlink_to(full)
    with RecordWriter(tmp_path, 1, 0) as writer:
        for step in (1, 2, 3):
            writer.write("step", step=step, **STEP)
    assert writer.lost == 3
    assert caplog.text.count("No space left") == 1


def test_a_folder_that_cannot_be_made_costs_records_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with RecordWriter(tmp_path / "file" / "records", 1, 0) as writer:
        writer.write("step", step=1, **STEP)
    assert writer.lost == 1


@pytest.mark.processes
def test_a_kill_at_any_instant_leaves_whole_records(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from aurl_trainer.monitor.records import RecordWriter\n"
        "writer = RecordWriter(sys.argv[1], 1, 0)\n"
        "step = 0\n"
        "while True:\n"
        "    step += 1\n"
        "    writer.write('step', step=step, loss=1.0, lr=1.0, tokens=1, seconds=1.0)\n"
        "    if step == 200: print('going', flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child, child.stdout as out:
        assert out.readline() == b"going\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait(60) == -signal.SIGKILL
    steps = [r["step"] for r in read_records(tmp_path)]
    assert len(steps) >= 200
    assert steps == list(range(1, len(steps) + 1)), "records before the kill are missing"


def test_every_line_is_strict_json(tmp_path: Path) -> None:
    with RecordWriter(tmp_path, 1, 0) as writer:
        writer.write("save", step=3, seconds=0.1, bytes=10, ok=False, message="no\nspace \u2028 <left>")
    (line,) = writer.path.read_text().splitlines()
    assert json.loads(line)["message"] == "no\nspace \u2028 <left>"


def test_the_start_names_the_node(tmp_path: Path) -> None:
    with RecordWriter(tmp_path, 1, 2, "worker-1") as writer:
        writer.write("start", generation=1, rank=2, world=3, total_steps=9)
    assert read_records(tmp_path)[0]["node"] == "worker-1"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes of a part: a few records."""
    monkeypatch.setattr(room, "PART_BYTES", 400)
    return 400


def test_long_records_are_parts_that_are_read_as_one(tmp_path: Path, small: int) -> None:
    with RecordWriter(tmp_path, 1, 0) as writer:
        for step in range(1, 31):
            writer.write("step", step=step, **STEP)
    with RecordWriter(tmp_path, 1, 0) as again:
        again.write("step", step=31, **STEP)
    sizes = {p.name: p.stat().st_size for p in tmp_path.iterdir()}
    assert {"gen-000001-rank-0000.jsonl", "gen-000001-rank-0000.001.jsonl"} < sizes.keys()
    assert max(sizes.values()) <= small, f"a part is longer than {small} bytes: {sizes}"
    assert len(sizes) < 31, "a part for each record"
    found = read_records(tmp_path)
    assert [r["step"] for r in found] == list(range(1, 32))
    assert {(r["generation"], r["rank"]) for r in found} == {(1, 0)}


def test_a_record_longer_than_a_part_is_a_part_of_its_own(tmp_path: Path, small: int) -> None:
    with RecordWriter(tmp_path, 1, 0) as writer:
        for step in (1, 2):
            writer.write("audit", step=step, ids=list(range(small)))
    assert len(list(tmp_path.iterdir())) == 2, "no part is empty"
    assert [r["step"] for r in read_records(tmp_path)] == [1, 2]


def test_records_of_the_same_instant_stay_in_the_order_of_their_parts(tmp_path: Path) -> None:
    line = '{"kind":"end","at":1.0,"step":%d,"reason":"r"}\n'
    for step, part in ((1, ""), (3, ".002"), (2, ".001"), (4, ".1000")):
        (tmp_path / f"gen-000001-rank-0000{part}.jsonl").write_text(line % step)
    assert [r["step"] for r in read_records(tmp_path)] == [1, 2, 3, 4]


def test_where_no_next_part_can_be_begun_the_last_one_grows(tmp_path: Path, small: int) -> None:
    with RecordWriter(tmp_path, 1, 0) as writer:
        (tmp_path / "gen-000001-rank-0000.001.jsonl").mkdir()
        for step in range(1, 11):
            writer.write("step", step=step, **STEP)
        (tmp_path / "gen-000001-rank-0000.001.jsonl").rmdir()
        writer.write("step", step=11, **STEP)
    assert writer.path.name == "gen-000001-rank-0000.001.jsonl", "it is tried again"
    assert [r["step"] for r in read_records(tmp_path)] == list(range(1, 12)) and not writer.lost
