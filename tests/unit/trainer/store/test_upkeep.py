"""`aurl checkpoints gc` and `verify --repair`: what goes, what is set aside, what is taken back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.contract import ExitCode
from aurl_trainer.errors import (
    CheckpointError,
    RefusedError,
)
from aurl_trainer.store.aside import set_aside
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.passes import retain
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.store.made import flip, open_run, save
from tests.unit.trainer.store.test_command import call


def test_gc_follows_the_runs_own_rules(tmp_path: Path) -> None:
    store, claim = open_run(str(tmp_path / "run"))
    keep = {"latest": 1, "best": 0, "grace_seconds": 0}
    extra = {"experiment": {"checkpoint": {"keep": keep}}}
    for n in (1, 2, 3):
        save(store, claim.id, n, n, at=1000.0 * n, extra=extra)
    would = json.loads(call("gc", tmp_path / "run", "--dry-run", "--json")[1])
    assert [n[:7] for n in would["removed"]] == ["v000001", "v000002"] and would["keep"]["latest"] == 1
    assert "removed: step 1 " in call("gc", tmp_path / "run", "--latest", 2)[1]
    assert call("gc", tmp_path / "run")[1].endswith("1 checkpoints stay\n")


def test_gc_removes_nothing_by_rules_that_it_does_not_understand(tmp_path: Path) -> None:
    """A newer Aurl may have recorded a rule that keeps what the defaults would not."""
    store, claim = open_run(str(tmp_path / "run"))
    keep = {"latest": 1, "grace_seconds": 0, "every_epochs": 1}
    for n in (1, 2, 3):
        save(store, claim.id, n, n, at=1000.0 * n, extra={"experiment": {"checkpoint": {"keep": keep}}})
    with pytest.raises(CheckpointError, match=r"@v3: checkpoint\.keep.*every_epochs.*Nothing was removed"):
        call("gc", tmp_path / "run", "--best", 1)
    assert len(store.valid()) == 3


def test_gc_removes_nothing_behind_a_bit_that_flipped(run: Path) -> None:
    store = RunStore(Location(str(run / "checkpoints")))
    flip(store.location, store.valid()[-1].pack(0))
    strict = ("--latest", 1, "--best", 0, "--grace", 0)
    assert "would go: step 10 " in call("gc", run, *strict, "--dry-run")[1]
    with pytest.raises(RefusedError, match=r"b\.noise in packs/v000003-") as refused:
        call("gc", run, *strict)
    advice = re.search(r"aurl checkpoints (verify .* --deep --repair): ", str(refused.value))
    assert advice is not None, refused.value
    assert "step 30: set aside" in call(*advice[1].split())[1], "the advice does not help"
    assert call("gc", run, *strict)[0] == 0
    assert [n.step for n in store.valid()] == [20]


def test_gc_removes_what_is_set_aside_when_asked_and_never_all_there_is(run: Path) -> None:
    store = RunStore(Location(str(run / "checkpoints")))
    names = store.valid()
    set_aside(store.location, names[2], ["a bit"])
    strict = ("--latest", 2, "--best", 0, "--grace", 0)
    assert call("gc", run, *strict)[0] == 0 and store.committed() == names, "it stays unless asked for"
    assert "would go: step 30 " in call("gc", run, *strict, "--aside", "--dry-run")[1]
    assert "removed: step 30 " in call("gc", run, *strict, "--aside")[1]
    assert store.committed() == names[:2] and store.aside() == frozenset()
    for name in names[:2]:
        set_aside(store.location, name, ["a bit"])
    with pytest.raises(CheckpointError, match="all 2 checkpoints there are set aside"):
        call("gc", run, *strict, "--aside")
    assert store.committed() == names[:2]


def test_repair_sets_aside_and_says_what_is_used(run: Path) -> None:
    (pack,) = (run / "checkpoints" / "packs").glob("v000003-*/*.pack")
    whole = pack.read_bytes()
    pack.write_bytes(whole[:-1])
    assert call("verify", run)[0] == ExitCode.CHECKPOINT
    code, text = call("verify", run, "--repair")
    assert code == 0
    assert "step 30: set aside; no reader takes it" in text and ": step 20 (v000002-" in text
    assert pack.exists(), "what is set aside is kept"
    assert json.loads(call("list", run, "--json")[1])["set_aside"][0].startswith("v000003-")
    assert json.loads(call("show", run, "--json")[1])["step"] == 20
    assert call("verify", run, "--deep") == (0, "step 10: whole\nstep 20: whole\n")
    pack.write_bytes(whole)
    assert "stays aside until --deep" in call("verify", run, "--repair")[1]
    assert "step 30: is whole again and counts" in call("verify", run, "--deep", "--repair")[1]
    for name in (run / "checkpoints" / "packs").glob("*/*.pack"):
        name.unlink()
    code, text = call("verify", run, "--repair", "--json")
    assert code == ExitCode.CHECKPOINT and json.loads(text)["used"] is None


def test_repair_takes_back_nothing_that_the_run_went_on_without(run: Path, tmp_path: Path) -> None:
    (pack,) = (run / "checkpoints" / "packs").glob("v000003-*/*.pack")
    whole = pack.read_bytes()
    pack.write_bytes(whole[:-1])
    assert "step 30: set aside" in call("verify", run, "--repair")[1]
    store, claim = open_run(str(run / "checkpoints"))
    (void,) = store.aside()
    save(store, claim.id, claim.next_number, 25)
    pack.write_bytes(whole)
    code, text = call("verify", run, "--deep", "--repair")
    assert code == 0 and "whole again, but the run went on from step 20, so it stays aside" in text
    assert "counts" not in text and ": step 25 (v000004-" in text
    keep = KeepConfig(latest=1, best=0, grace_seconds=0)
    retain(store, claim.id, keep)
    assert [n.step for n in store.committed()] == [30, 25], "it was kept only by being set aside"

    assert call("copy", f"{run}@{void}", tmp_path / "copy")[0] == 0
    assert call("verify", tmp_path / "copy", "--deep") == (0, "step 30: whole\n")
    advice = re.search(r"aurl checkpoints (tag \S+) NAME", text)
    assert advice is not None, text
    assert call(*advice[1].split(), "mended")[0] == 0
    text = call("verify", run, "--deep", "--repair")[1]
    assert "step 30: is whole again, and kept by its tag; the run went on from step 20" in text
    retain(store, claim.id, keep)
    assert store.aside() == frozenset() and [n.step for n in store.committed()] == [30, 25]
    assert json.loads(call("show", f"{run}@mended", "--json")[1])["step"] == 30


def go_on(run: Path, latest: int, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """The run goes on: between a visitor's look at which checkpoints are there, and its reading of them, it
    saves once more and removes all but the `latest`."""
    store, claim = open_run(str(run / "checkpoints"))
    listed = RunStore.valid

    def valid(self: RunStore) -> list[CheckpointName]:
        names = listed(self)
        monkeypatch.setattr(RunStore, "valid", listed)
        save(store, claim.id, claim.next_number, 40)
        retain(store, claim.id, KeepConfig(latest=latest, best=0, grace_seconds=0))
        return names

    monkeypatch.setattr(RunStore, "valid", valid)
    return store


def test_what_the_run_removed_meanwhile_is_not_damaged(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = go_on(run, 2, monkeypatch)
    code, text = call("verify", run, "--deep")
    assert [n.step for n in store.committed()] == [30, 40], "nothing was removed meanwhile"
    gone = "the run itself removed it meanwhile"
    assert (code, text) == (0, f"step 10: {gone}\nstep 20: {gone}\nstep 30: whole\n")


def test_what_the_run_removed_meanwhile_is_not_set_aside(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = go_on(run, 2, monkeypatch)
    code, text = call("verify", run, "--repair", "--json")
    found = json.loads(text)
    assert code == 0 and [c["step"] for c in found["checkpoints"]] == [30]
    assert [n[:7] for n in found["removed"]] == ["v000001", "v000002"]
    assert store.aside() == frozenset(), "a mark stays for ever of what is not there"


@pytest.mark.parametrize("which", ["", "@latest"])
def test_all_that_was_to_be_looked_at_may_be_removed_meanwhile(
    run: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on(run, 1, monkeypatch)
    with pytest.raises(RefusedError, match=r"v000003-.*the run itself removed it meanwhile; try again"):
        call("verify", f"{run}{which}")
