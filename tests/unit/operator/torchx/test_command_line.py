"""What a person sees who mistypes something behind `torchx`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_mistake_is_a_line_and_no_traceback(tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "torchx")
    argv = [program, "run", "--dryrun", "-s", "aurl", "aurl.train", "--config", "nonsense"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path)
    assert done.returncode != 0
    assert "error: aurl.train: spec.training: no preset named 'nonsense'" in done.stderr, done.stderr[-2000:]
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
