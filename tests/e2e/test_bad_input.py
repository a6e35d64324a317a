"""Bad input to a whole run: one clear line on the terminal, the right exit code, nothing half-written."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from aurl_trainer.contract import ExitCode
from bench.chaos.job import AURL, environment, job, write_music
from tests.e2e.runs import state


def run(file: Path, run_dir: Path) -> tuple[int, str]:
    done = subprocess.run(
        [*AURL, "run", str(file), "--run-dir", str(run_dir)],
        capture_output=True, text=True, env=environment(), stdin=subprocess.DEVNULL, timeout=240, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def broken(folder: Path) -> None:
    (folder / "empty.mid").write_bytes(b"")
    (folder / "text.mid").write_text("this is no MIDI file")
    (folder / "cut.mid").write_bytes(b"MThd\x00\x00\x00\x06\x00\x01")


def nothing(folder: Path) -> None:
    """An empty folder."""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("fill", "training", "exit_code", "expected"),
    [
        (nothing, {}, ExitCode.DATA, "data.source.midi: no .mid or .midi file in"),
        (broken, {}, ExitCode.DATA, "none of the 3 files"),
        (write_music, {"checkpoint": {"uri": "nosuch://bucket/run"}}, ExitCode.CHECKPOINT, "nosuch"),
        (write_music, {"checkpoint": {"uri": "/proc/nowhere/run"}}, ExitCode.CHECKPOINT, "/proc/nowhere/run"),
        (write_music, {"data": {"sequence_length": 60000}}, ExitCode.DATA, "sequence_length"),
    ],
)
def test_a_run_that_cannot_start_fails_once_and_says_why(
    tmp_path: Path, fill: Any, training: dict[str, Any], exit_code: ExitCode, expected: str
) -> None:
    music = tmp_path / "music"
    music.mkdir()
    fill(music)
    code, output = run(job(tmp_path, music, nodes=1, steps=5, **training), tmp_path / "run")
    assert code == exit_code, output
    assert expected in output, f"expected a line with {expected!r}:\n{output}"
    assert "Traceback" not in output, output
    assert state(tmp_path / "run")["status"]["phase"] == "Failed"
    assert not list((tmp_path / "run" / "checkpoints").rglob("*.pack"))
