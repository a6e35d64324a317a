"""A run's directory: who may use it, and what survives a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from aurl_operator.backends.local.rundir import LOCK, RunDir, differences, held, read_ledger, read_state
from aurl_operator.errors import RefusedError
from aurl_trainer.contract import LedgerEntry, RunFile

IDENTITY = {"metadata": {"name": "tiny"}, "spec": {"training": {"seed": 1, "engine": {"betas": [0.9, 0.95]}}}}


def entry(number: int) -> LedgerEntry:
    return LedgerEntry(kind="incident", at=float(number), id=f"incident/{number}", message="x" * 50)


def test_a_run_keeps_its_identity_state_and_ledger(tmp_path: Path) -> None:
    run = RunDir.open(tmp_path / "run", IDENTITY)
    run.state["memory"] = {"round": 3}
    run.save()
    assert run.book([entry(1), entry(2)]) == [entry(1), entry(2)]
    run.close()
    again = RunDir.open(tmp_path / "run", IDENTITY)
    assert again.run_id == run.run_id and again.state["memory"] == {"round": 3}
    assert again.book([entry(2), entry(3)]) == [entry(3)], "what is booked is not booked twice"
    again.close()
    assert [e.id for e in read_ledger(tmp_path / "run")] == ["incident/1", "incident/2", "incident/3"]


def test_another_config_is_refused_with_what_differs(tmp_path: Path) -> None:
    RunDir.open(tmp_path / "run", IDENTITY).close()
    run = RunDir.open(tmp_path / "run", IDENTITY)
    run.save()
    run.close()
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "run").iterdir() if p.name != LOCK)
    other = {
        "metadata": {"name": "tiny"},
        "spec": {"training": {"seed": 2, "engine": {"betas": [0.9, 0.99]}}},
    }
    with pytest.raises(RefusedError) as refusal:
        RunDir.open(tmp_path / "run", other)
    assert str(refusal.value).splitlines()[1:] == [
        "spec.training.seed: 1 there, 2 here",
        "spec.training.engine.betas.1: 0.95 there, 0.99 here",
    ]
    after = sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "run").iterdir() if p.name != LOCK)
    assert before == after, "a refusal changes nothing"
    assert not held(tmp_path / "run"), "a refusal gives the lock back"


def failed_run(path: Path, identity: dict[str, Any]) -> None:
    run = RunDir.open(path, identity)
    run.state["status"] = {"phase": "Failed"}
    run.save()
    run.close()


def test_a_job_that_failed_before_it_trained_may_be_mended_in_place(tmp_path: Path) -> None:
    failed_run(tmp_path / "run", IDENTITY)
    mended = {"metadata": {"name": "tiny"}, "spec": {"training": {"seed": 2}}}
    run = RunDir.open(tmp_path / "run", mended)
    assert run.state["identity"] == mended
    (tmp_path / "run" / RunFile.RECORDS / "gen-000001-rank-0000.jsonl").write_text("{}\n")
    run.save()
    run.close()
    with pytest.raises(RefusedError):
        RunDir.open(tmp_path / "run", IDENTITY)


def test_a_failed_script_may_have_left_anything_so_another_one_is_refused(tmp_path: Path) -> None:
    failed_run(tmp_path / "run", {"spec": {"command": ["a.py"]}})
    with pytest.raises(RefusedError):
        RunDir.open(tmp_path / "run", {"spec": {"command": ["b.py"]}})


def test_differences_name_what_is_only_on_one_side() -> None:
    assert differences({"a": 1, "b": {}}, {"a": 1, "b": {"c": None}}) == [
        "b: {} there, nothing here",
        "b.c: nothing there, null here",
    ]


def test_only_one_process_may_run_there(tmp_path: Path) -> None:
    run = RunDir.open(tmp_path / "run", IDENTITY)
    code = f"""
        from pathlib import Path
        from aurl_operator.backends.local.rundir import RunDir
        try:
            RunDir.open(Path({str(tmp_path / "run")!r}), {IDENTITY!r}, seconds=5)
        except Exception as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("RefusedError") and f"(process {os.getpid()})" in done.stdout
    assert held(tmp_path / "run")
    run.close()
    assert not held(tmp_path / "run")


def test_the_lock_of_a_dead_run_is_waited_for_while_its_guard_sweeps(tmp_path: Path) -> None:
    """The guard inherits the lock: simulated by a child that holds it longer than its parent."""
    path = tmp_path / "run"
    code = f"""
        import subprocess, sys
        from pathlib import Path
        from aurl_operator.backends.local.rundir import RunDir
        run = RunDir.open(Path({str(path)!r}), {IDENTITY!r})
        subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], pass_fds=(run.lock,))
    """
    reading, writing = os.pipe()
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stdin=reading, check=True)
    os.close(reading)
    assert held(path)
    told: list[str] = []

    def waits(text: str) -> None:
        told.append(text)
        os.close(writing)  # only now the child may end

    RunDir.open(path, IDENTITY, wait=waits).close()
    assert told == ["waiting for the processes of a killed run to end"]


@pytest.mark.parametrize("name", ["file", "folder"])
def test_what_is_no_run_is_left_alone(name: str, tmp_path: Path) -> None:
    if name == "file":
        (tmp_path / name).write_text("precious")
    else:
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("precious")
    with pytest.raises(RefusedError, match="--run-dir"):
        RunDir.open(tmp_path / name, IDENTITY)
    assert [p.name for p in tmp_path.rglob("*")] == ([name] if name == "file" else [name, "thesis.tex"])


def test_a_torn_line_of_the_ledger_costs_that_line_only(tmp_path: Path) -> None:
    run = RunDir.open(tmp_path / "run", IDENTITY)
    run.book([entry(1)])
    run.close()
    with (tmp_path / "run" / RunFile.LEDGER).open("a") as file:
        file.write('{"v": 1, "kind": "inci')
    again = RunDir.open(tmp_path / "run", IDENTITY)
    again.book([entry(2)])
    again.close()
    assert [e.id for e in read_ledger(tmp_path / "run")] == ["incident/1", "incident/2"]


def test_a_full_disk_books_all_or_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that is full in the middle of a write."""
    path = tmp_path / "run"
    code = f"""
        import resource, signal
        from pathlib import Path
        from aurl_operator.backends.local.rundir import RunDir
        from aurl_trainer.contract import LedgerEntry
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        run = RunDir.open(Path({str(path)!r}), {IDENTITY!r})
        first = LedgerEntry(kind="node", at=1.0, id="1")
        run.book([first])
        run.save()
        size = (run.path / "ledger.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
        late = LedgerEntry(kind="node", at=2.0, id="2")
        for attempt in (lambda: run.book([late]), run.save):
            try:
                attempt()
                print("written")
            except OSError as error:
                print(error.strerror)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(len(run.book([first, late])))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:3] == ["File too large", "File too large", "1"]
    assert [e.id for e in read_ledger(path)] == ["1", "2"]
    assert read_state(path)["identity"] == IDENTITY, "the old state stands"


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / RunFile.STATE).write_text(json.dumps({"format": 99}))
    with pytest.raises(RefusedError, match="another version"):
        read_state(tmp_path)
    (tmp_path / RunFile.STATE).write_text("{")
    with pytest.raises(RefusedError, match="cannot be read"):
        read_state(tmp_path)
