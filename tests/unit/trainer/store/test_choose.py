"""Which checkpoint a reference means: of its run, by tag, step or number, the latest, the best."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aurl_trainer.config.reference import Best, Latest, Number, Step, Tag, parse_which
from aurl_trainer.errors import CheckpointError, DamagedError, MissingError
from aurl_trainer.store.catalog.index import OBJECT, renew_index
from aurl_trainer.store.catalog.scan import runs_at
from aurl_trainer.store.choose import candidates, checkpoints_of, chosen, first_whole, resolve
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.tags import set_tag
from tests.unit.trainer.store.faulty import FaultyFileSystem
from tests.unit.trainer.store.made import flip, open_run, save


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "file" else f"memory:/{tmp_path}"


def test_which_checkpoint_is_chosen(uri: str) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        candidates(RunStore(Location(uri)), Latest())
    store, claim = open_run(uri)
    for number, nll in ((1, 2.0), (2, 1.5), (3, None), (4, 1.7)):
        save(store, claim.id, number, number * 10, nll)
    set_tag(store, "prod", store.valid()[0])
    assert [n.step for n in candidates(store, Latest())] == [40, 30, 20, 10]
    assert [n.step for n in candidates(store, Best())] == [20, 40, 10], "one without the metric is not best"
    assert [n.step for n in candidates(store, Best("val_nll", greatest=True))] == [10, 40, 20]
    assert [n.step for n in candidates(store, Step(30))] == [30]
    assert [n.step for n in candidates(store, Number(2))] == [20]
    assert [n.step for n in candidates(store, Tag("prod"))] == [10]
    whole_name = parse_which(str(store.valid()[1]))
    assert whole_name is not None and resolve(store, whole_name).step == 20


@pytest.mark.parametrize(
    ("which", "says"),
    [
        (Step(35), r"no checkpoint of step 35; there are: 10, 20$"),
        (Number(9), r"no checkpoint v9; there are: v1 \(step 10\), v2 \(step 20\)$"),
        (Tag("prod"), r"no tag 'prod'; there are: none; aurl checkpoints tag"),
        (Best("groove"), r"no checkpoint has the metric groove; there are: val_nll$"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(which: Any, says: str) -> None:
    FaultyFileSystem.clear()
    store, claim = open_run("faulty://run")
    for number, nll in ((1, 2.0), (2, 1.5)):
        save(store, claim.id, number, number * 10, nll)
    with pytest.raises(CheckpointError, match=says):
        candidates(store, which)
    FaultyFileSystem.clear()


def test_the_best_by_the_index_reads_no_manifest(uri: str) -> None:
    store, claim = open_run(uri)
    for number, nll in ((1, 2.0), (2, 1.5), (3, 1.7)):
        save(store, claim.id, number, number * 10, nll)
    renew_index(store)
    later = RunStore(Location(uri))
    read: list[str] = []
    get = later.location.get
    later.location.get = lambda name, *a: read.append(name) or get(name, *a)  # type: ignore[method-assign,func-returns-value]
    assert resolve(later, Best()).step == 20
    assert [name for name in read if name.startswith("manifests/")] == []
    assert chosen(later, Best()).step == 20
    assert [name for name in read if name.startswith("manifests/")] == [later.valid()[1].manifest]


@pytest.mark.parametrize("index", ["none", "whole", "damaged"])
@pytest.mark.parametrize("which", [Latest(), Best()])
def test_a_damaged_one_is_passed_over_and_told(uri: str, index: str, which: Any) -> None:
    store, claim = open_run(uri)
    for number, nll in ((1, 2.0), (2, 1.7), (3, 1.5)):
        save(store, claim.id, number, number * 10, nll)
    if index != "none":
        renew_index(store)
    if index == "damaged":
        flip(store.location, OBJECT)
    flip(store.location, store.valid()[-1].manifest)
    later = RunStore(Location(uri))
    passed_over: list[int] = []
    step = first_whole(later, which, lambda m: m.step, lambda name, _: passed_over.append(name.step))
    assert step == 20
    told_by_manifests_alone = isinstance(which, Best) and index != "whole"
    assert passed_over == ([] if told_by_manifests_alone else [30])


@pytest.mark.parametrize("which", [Latest(), Best(), Number(1), Step(10)])
def test_with_nothing_but_damage_the_damage_is_told(uri: str, which: Any) -> None:
    store, claim = open_run(uri)
    save(store, claim.id, 1, 10, 2.0)
    flip(store.location, store.valid()[0].manifest)
    with pytest.raises(DamagedError, match="its digest does not match"):
        chosen(RunStore(Location(uri)), which)


@pytest.mark.parametrize("name", ["a" * 256, "a/" * 3000])
@pytest.mark.parametrize("asked", [checkpoints_of, runs_at])
def test_what_no_file_can_be_called_is_not_there(name: str, asked: Callable[[str], object]) -> None:
    with pytest.raises(MissingError, match="no checkpoints there"):
        asked(name)


@pytest.mark.parametrize("asked", [checkpoints_of, runs_at])
def test_a_run_that_this_user_may_not_look_into_is_told(
    tmp_path: Path, asked: Callable[[str], object]
) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0)
    user = os.geteuid()
    try:
        if user == 0:  # who may look into all
            os.seteuid(65534)
        with pytest.raises(
            CheckpointError, match=r"run: cannot be looked at \(Permission denied: .*permissions"
        ):
            asked(str(run))
    finally:
        os.seteuid(user)


def test_a_run_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "bach" / "checkpoints" / "manifests").mkdir(parents=True)
    assert checkpoints_of("bach") == "runs/bach/checkpoints"
    with pytest.raises(MissingError, match="mozart, runs/mozart: no checkpoints there"):
        checkpoints_of("mozart")
    store, claim = open_run(f"memory:/{tmp_path}/store/mozart")
    save(store, claim.id, 1, 10)
    monkeypatch.setenv("AURL_RUNS", f"memory:/{tmp_path}/store/")
    assert checkpoints_of("mozart") == f"memory:/{tmp_path}/store/mozart"
    monkeypatch.setenv("AURL_RUNS", str(tmp_path / "runs"))
    assert checkpoints_of("bach") == "runs/bach/checkpoints"


def test_a_run_is_found_by_its_directory(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no checkpoints there"):
        checkpoints_of(str(tmp_path))
    assert checkpoints_of("s3://bucket/x") == "s3://bucket/x"
    (tmp_path / "checkpoints" / "manifests").mkdir(parents=True)
    assert checkpoints_of(str(tmp_path)) == str(tmp_path / "checkpoints")
    assert checkpoints_of(str(tmp_path / "checkpoints")) == str(tmp_path / "checkpoints")
    (tmp_path / "job.yaml").write_text("spec: {checkpoint: {uri: 'gs://b/run'}}")
    assert checkpoints_of(str(tmp_path)) == "gs://b/run"
    (tmp_path / "job.yaml").write_text("spec: {checkpoint: {}}")
    assert checkpoints_of(str(tmp_path)) == str(tmp_path / "checkpoints")
