"""`aurl checkpoints`: listing, finding, showing, tagging, copying. Not here: upkeep (test_upkeep.py)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aurl_trainer.commands.checkpoints.app import app
from aurl_trainer.contract import ExitCode
from aurl_trainer.errors import (
    CheckpointError,
    ConfigError,
    DamagedError,
    MissingError,
    QueryError,
    RefusedError,
)
from aurl_trainer.store.aside import set_aside, take_back
from aurl_trainer.store.format.plain import encode
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.store.made import flip, open_run, save


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


def test_list_shows_every_metric_where_that_is_asked_for(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path / "run"))
    save(store, claim.id, 1, 10, metrics={"val_nll": 2.0, "scale_consistency": 0.875, "polyphony": 3.5})
    save(store, claim.id, 2, 20, metrics={"val_nll": 1.0})
    lines = call("list", tmp_path / "run", "--metrics")[1].splitlines()
    assert lines[0].split()[-4:] == ["val", "NLL", "polyphony", "scale_consistency"]
    assert lines[1].split()[-3:] == ["2.0000", "3.5000", "0.8750"]
    assert lines[2].split()[-2:] == ["1.0000", "best"]
    assert "polyphony" not in call("list", tmp_path / "run")[1]
    assert "metric scale_consistency 0.8750" in call("show", f"{tmp_path / 'run'}@v1")[1]


def test_list_as_json_is_for_scripts(run: Path) -> None:
    code, text = call("list", run / "checkpoints", "--json")
    found = json.loads(text)
    assert code == 0
    assert [(c["step"], c["best"]) for c in found["checkpoints"]] == [(10, False), (20, True), (30, False)]
    assert found["checkpoints"][1]["metrics"] == {"val_nll": 1.25}


def test_verify_says_whole_and_names_what_is_not(run: Path) -> None:
    assert call("verify", run, "--deep") == (0, "step 10: whole\nstep 20: whole\nstep 30: whole\n")
    (pack,) = (run / "checkpoints" / "packs").glob("v000002-*/*.pack")
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    quick = "step 20: whole, as far as its manifest and sizes tell\n"
    assert call("verify", f"{run}@step:20") == (0, quick), "a flipped bit changes no size"
    code, text = call("verify", run, "--deep")
    assert code == ExitCode.CHECKPOINT
    assert "step 20: DAMAGED\n  v000002-" in text and "b.noise in packs/" in text
    code, text = call("verify", run, "--deep", "--json")
    assert code == ExitCode.CHECKPOINT
    assert [c["good"] for c in json.loads(text)["checkpoints"]] == [True, False, True]
    assert call("verify", f"{run}@step:10", "--deep") == (0, "step 10: whole\n")


def test_a_damaged_manifest_is_listed_as_such(run: Path) -> None:
    (manifest,) = (run / "checkpoints" / "manifests").glob("v000001-*")
    manifest.write_text("{}")
    code, text = call("list", run)
    assert code == 0
    assert re.search(r"10 .*digest does not match", text)


def test_what_is_not_there_is_said(tmp_path: Path, run: Path) -> None:
    with pytest.raises(MissingError, match="no checkpoints there"):
        call("list", tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no checkpoint of step 77; there are: 10, 20, 30"):
        call("verify", f"{run}@step:77")
    (tmp_path / "empty" / "manifests").mkdir(parents=True)
    assert call("list", tmp_path / "empty")[1].strip().endswith("no checkpoints yet")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder with two runs, one of them as `aurl run` lays it out."""
    for place, nlls in (("bach/checkpoints", (2.0, 1.25, None)), ("mozart", (0.5,))):
        store, claim = open_run(str(tmp_path / "many" / place))
        for number, nll in enumerate(nlls, start=1):
            save(store, claim.id, number, number * 10, nll)
    return tmp_path / "many"


def test_list_of_a_store_shows_its_runs(many: Path) -> None:
    code, text = call("list", many, "--json")
    assert code == 0
    assert [(r["run"], r["step"], r["best_val_nll"]) for r in json.loads(text)["runs"]] == [
        ("bach", 30, 1.25),
        ("mozart", 10, 0.5),
    ]
    assert "mozart" in call("list", many)[1]


def test_find_filters_and_sorts_over_runs_with_or_without_an_index(many: Path) -> None:
    ask = ("find", many, "--where", "val_nll < 2 and step != 7", "--sort", "val_nll", "--json")
    expected = [("mozart", 10), ("bach", 20)]
    for prepare in ((), ("index", many), ("index", many, "--rebuild")):
        if prepare:
            assert call(*prepare)[0] == 0
        found = json.loads(call(*ask)[1])["checkpoints"]
        assert [(c["run"], c["step"]) for c in found] == expected, f"after {prepare}"
    assert "0 manifests read" in call("index", many)[1], "an index saves reading"
    code, text = call("find", many, "--sort", "-step", "--limit", 1)
    assert code == 0 and text.splitlines()[1].split()[:2] == ["bach", "30"]
    with pytest.raises(QueryError, match="did you mean val_nll"):
        call("find", many, "--where", "val_nl < 2")


def test_find_points_at_a_setting_that_no_checkpoint_has(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path / "run"))
    save(store, claim.id, 1, 10, extra={"experiment": {"model": {"dim": 64, "latent": None}}})
    for condition, found in (("model.dim = 64", 1), ("model.latent is None", 1), ("model.latent > 3", 0)):
        text = call("find", tmp_path, "--where", condition, "--json")[1]
        assert len(json.loads(text)["checkpoints"]) == found, condition
    with pytest.raises(QueryError, match=r"no checkpoint has 'model\.dimm'"):
        call("find", tmp_path, "--where", "model.dimm > 3")


def test_what_is_damaged_is_passed_over_aloud_and_never_where_the_result_stays(
    run: Path, tmp_path: Path
) -> None:
    store = RunStore(Location(str(run / "checkpoints")))
    flip(store.location, store.valid()[-1].manifest)
    shown = CliRunner().invoke(app, ["show", str(run), "--json"])
    assert json.loads(shown.stdout)["step"] == 20
    assert "step 30 is damaged and passed over: " in shown.stderr
    copied = ("copy", run, tmp_path / "copy")
    averaged = ("average", run, f"{run}@v1", "--no-measure", "--to", tmp_path / "mean")
    for command in (copied, averaged):
        with pytest.raises(DamagedError, match="v000003-"):
            call(*command)
        assert not RunStore(Location(str(command[-1]))).committed()


def test_no_checkpoint_is_put_into_a_runs_directory(run: Path, tmp_path: Path) -> None:
    """Whoever named the run would find the foreign one, and none of its own."""
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "job.yaml").write_text("{}")
    there = json.loads(call("list", run, "--json")[1])
    for place, words in (
        (run, "directory of a run"),
        (begun, "directory of a run"),
        (" ", "expected a place"),
    ):
        for command in (
            ("copy", f"{run}@v1", place),
            ("promote", f"{run}@v1", "--to", place),
        ):
            with pytest.raises(RefusedError, match=words):
                call(*command)
    assert json.loads(call("list", run, "--json")[1]) == there
    assert [p.name for p in begun.iterdir()] == ["job.yaml"]


def test_an_export_to_a_name_that_no_file_can_have_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="cannot be a file's name there: File name too long"):
        call("export", run, "--to", tmp_path / ("x" * 300))


def test_a_tag_names_a_checkpoint_everywhere(run: Path) -> None:
    assert call("tag", f"{run}@best", "paper")[0] == 0
    assert json.loads(call("show", f"{run}@paper", "--json")[1])["step"] == 20
    assert "paper" in call("list", run)[1].splitlines()[2]
    assert call("tag", f"{run}@v1", "paper")[1].startswith("paper names step 10")
    assert json.loads(call("tag", run, "--json")[1])["tags"].keys() == {"paper"}
    assert call("tag", run, "paper", "--delete")[1].startswith("paper is deleted; it named step 10")
    assert call("tag", run)[1] == "no tags\n"
    with pytest.raises(ConfigError, match="cannot be a tag"):
        call("tag", run, "a/b")
    assert call("tag", f"{run}@v1", "paper", "--delete")[0] == ExitCode.USAGE
    assert call("show", f"{run}@no tag")[0] == ExitCode.USAGE


def test_what_has_a_tag_is_listed_and_verified_though_the_run_went_on_without_it(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path / "run"))
    for number, nll in ((1, 2.0), (2, 0.5), (3, 0.25)):
        save(store, claim.id, number, number * 10, nll)
    best = str(store.valid()[1])
    call("tag", f"{tmp_path}/run@step:20", "paper")
    call("tag", f"{tmp_path}/run@step:10", "first")
    set_aside(store.location, store.valid()[2], ["a test"])
    set_aside(store.location, store.valid()[1], ["a test"])
    store, later = open_run(str(tmp_path / "run"))
    save(store, later.id, later.next_number, 15)
    for name in store.aside():
        take_back(store.location, name)
    code, text = call("list", tmp_path / "run")
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["10", "20", "15"]
    assert lines[1].endswith("best, first") and lines[2].endswith("paper, no part of the run's history")
    rows = json.loads(call("list", tmp_path / "run", "--json")[1])["checkpoints"]
    assert [(r["step"], r["best"], r["in_history"]) for r in rows] == [
        (10, True, True),
        (20, False, False),
        (15, False, True),
    ]
    whole = "step 10: whole\nstep 20 (no part of the run's history): whole\nstep 15: whole\n"
    assert call("verify", tmp_path / "run", "--deep") == (0, whole)

    flip(store.location, f"packs/{best}/rank-0000.pack")
    code, text = call("verify", tmp_path / "run", "--deep", "--json")
    found = json.loads(text)["checkpoints"]
    assert code == ExitCode.CHECKPOINT
    assert [(c["step"], c["good"], c["in_history"]) for c in found] == [
        (10, True, True),
        (20, False, False),
        (15, True, True),
    ]
    assert "step 20: set aside" in call("verify", tmp_path / "run", "--deep", "--repair")[1]
    assert call("verify", tmp_path / "run", "--deep") == (0, "step 10: whole\nstep 15: whole\n")
    assert [line.split()[0] for line in call("list", tmp_path / "run")[1].splitlines()[1:3]] == ["10", "15"]


def test_show_and_diff_tell_of_checkpoints(run: Path) -> None:
    text = call("show", f"{run}@best", "--tensors")[1]
    assert "metric val_nll 1.2500" in text and "a.zeros" in text and "float32[100]" in text
    text = call("diff", f"{run}@v1", f"{run}@v2")[1]
    assert "val_nll: 2.0000 -> 1.2500" in text and "b.noise: other values" in text
    assert "1 tensors are the same" in text
    assert json.loads(call("diff", f"{run}@v1", f"{run}@v2", "--json")[1])["same_tensors"] == 1


def test_show_keeps_passwords_of_older_jobs_to_itself(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path / "run"))
    experiment = {
        "checkpoint": {"uri": "sftp://me:s3cr3t@host/run"},
        "init_from": "sftp://me:s3cr3t@host/old",
    }
    save(store, claim.id, 1, 10, extra=encode({"experiment": experiment}, "extra"))
    for options in ((), ("--json",)):
        text = call("show", tmp_path / "run", *options)[1]
        assert "s3cr3t" not in text and "sftp://***@host/run" in text and "sftp://***@host/old" in text, text


def test_copy_and_promote_go_to_other_stores(run: Path, tmp_path: Path) -> None:
    assert call("copy", f"{run}@best", tmp_path / "copy")[0] == 0
    assert call("verify", tmp_path / "copy", "--deep") == (0, "step 20: whole\n")
    for which in ("v1", "v2"):
        assert call("promote", f"{run}@{which}", "--to", tmp_path / "models", "--tag", "prod")[0] == 0
    assert json.loads(call("show", f"{tmp_path / 'models'}@prod", "--json")[1])["step"] == 20
    assert call("promote", f"{run}@v1", "--to", tmp_path / "models", "--tag", "v1")[0] == ExitCode.USAGE


def test_no_command_loads_torch(run: Path, tmp_path: Path) -> None:
    lines = [["list", run], ["show", run], ["find", run, "--where", "step > 1"], ["verify", run], ["gc", run]]
    lines += [["index", run], ["copy", run, tmp_path / "copy"], ["tag", run, "paper"], ["diff", run, run]]
    code = (
        "import sys; from aurl_trainer.commands.checkpoints.app import app\n"
        "assert 'fsspec' not in sys.modules and 'pydantic' not in sys.modules, 'help would be slow'\n"
        f"for line in {[[str(word) for word in line] for line in lines]!r}:\n"
        "    app(line, standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
