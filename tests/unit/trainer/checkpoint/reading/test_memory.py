"""Loading into a model that is there takes a bounded buffer more, never the state a second time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aurl_trainer.checkpoint.parts import ModelPart
from aurl_trainer.store.format.reading import AHEAD_BYTES, PIECE_BYTES
from tests.unit.trainer.checkpoint.reading.loads import Wide
from tests.unit.trainer.checkpoint.small import checkpointer

SIZE = 384 * 2**20


@pytest.mark.processes
def test_a_load_holds_the_state_once(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    saver = checkpointer(uri, compression=0)
    saver.open({})
    saver.save(1, {"model": ModelPart(Wide(SIZE, 2.5))}, {})
    script = Path(__file__).with_name("loads.py")
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.trainer.checkpoint.reading.loads", uri, str(SIZE)],
        cwd=script.parents[5],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["first"], told["second"]) == (2.5, 2.5), "not loaded"
    assert told["content"] == SIZE
    assert told["said"] == told["after"], "the peak that is printed is not the system's"
    more = told["after"] - told["before"]
    bound = AHEAD_BYTES + 6 * PIECE_BYTES
    assert more < bound, f"the load held {more / 2**20:.0f} MiB beside the state, more than its buffers"
