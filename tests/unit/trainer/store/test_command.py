from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aurl_trainer.commands.checkpoints import app
from aurl_trainer.contract import ExitCode
from aurl_trainer.errors import CheckpointError, MissingError
from tests.unit.trainer.store.made import open_run, save


@pytest.fixture
def run(tmp_path: Path) -> Path:
    store, claim = open_run(str(tmp_path / "checkpoints"))
    for number, nll in ((1, 2.0), (2, 1.25), (3, None)):
        save(store, claim.id, number, number * 10, nll)
    return tmp_path


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_list_shows_each_checkpoint_and_the_best(run: Path) -> None:
    code, text = call("list", run)
    assert code == 0
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["10", "20", "30"]
    assert [("best" in line) for line in lines[1:]] == [False, True, False]
    assert "1.2500" in lines[2]


def test_list_as_json_is_for_scripts(run: Path) -> None:
    code, text = call("list", run / "checkpoints", "--json")
    found = json.loads(text)
    assert code == 0
    assert [(c["step"], c["best"]) for c in found["checkpoints"]] == [(10, False), (20, True), (30, False)]
    assert found["checkpoints"][1]["metrics"] == {"val_nll": 1.25}


def test_verify_says_whole_and_names_what_is_not(run: Path) -> None:
    assert call("verify", run) == (0, "step 10: whole\nstep 20: whole\nstep 30: whole\n")
    (pack,) = (run / "checkpoints" / "packs").glob("v000002-*/*.pack")
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    code, text = call("verify", run)
    assert code == ExitCode.CHECKPOINT
    assert "step 20: DAMAGED\n  v000002-" in text and "b.noise in packs/" in text
    code, text = call("verify", run, "--json")
    assert code == ExitCode.CHECKPOINT
    assert [c["good"] for c in json.loads(text)["checkpoints"]] == [True, False, True]
    assert call("verify", run, "--step", 10) == (0, "step 10: whole\n")


def test_a_damaged_manifest_is_listed_as_such(run: Path) -> None:
    (manifest,) = (run / "checkpoints" / "manifests").glob("v000001-*")
    manifest.write_text("{}")
    code, text = call("list", run)
    assert code == 0
    assert re.search(r"10 .*digest does not match", text)


def test_what_is_not_there_is_said(tmp_path: Path, run: Path) -> None:
    with pytest.raises(MissingError, match="no checkpoints there"):
        call("list", tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no checkpoint of step 77 there"):
        call("verify", run, "--step", 77)
    (tmp_path / "empty" / "manifests").mkdir(parents=True)
    assert call("list", tmp_path / "empty")[1].strip().endswith("no checkpoints yet")


def test_listing_loads_no_torch(run: Path) -> None:
    code = (
        "import sys; from aurl_trainer.commands.checkpoints import app\n"
        f"app(['list', {str(run)!r}], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
