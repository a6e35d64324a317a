from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from aurl_trainer.checkpoint.parts import ModelPart
from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.errors import CheckpointError, FencedError, RefusedError
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.checkpoint.small import checkpointer, hash_of, make, state, train
from tests.unit.trainer.store.faulty import FaultyFileSystem


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/run" if request.param == "file" else f"memory:/{tmp_path}/run"


def steps(uri: str) -> list[int]:
    return [n.step for n in RunStore(Location(uri)).valid()]


def test_a_resumed_run_is_bit_exact_with_an_undisturbed_one(uri: str) -> None:
    whole = make(1)
    train(*whole, *range(6))
    first = make(1)
    saver = checkpointer(uri)
    saver.probe()
    assert saver.open(state(*first)).restored is None
    train(*first, *range(3))
    saved = saver.save(3, state(*first), {"position": 3}, {"val_nll": 1.5})
    assert saved.step == 3 and saved.bytes > 0
    at_save = hash_of(*first)

    second = make(2)  # other weights, and an optimizer that has no state yet
    opened = checkpointer(uri).open(state(*second))
    assert opened.generation == 2
    assert opened.restored is not None and opened.restored.step == 3
    assert opened.restored.name == saved.name
    assert opened.restored.metrics == {"val_nll": 1.5}
    assert hash_of(*second) == at_save, "what was loaded is not what was saved"
    assert second[0].head.weight is second[0].embedding.weight, "the tie is lost"
    train(*second, *range(3, 6))
    assert hash_of(*second) == hash_of(*whole), "the resumed run differs from the undisturbed one"


def test_opening_an_empty_place_changes_nothing(uri: str) -> None:
    plain, opened = make(1), make(1)
    checkpointer(uri).open(state(*opened))
    assert not opened[1].state, "the optimizer has been stepped"
    train(*plain, 0)
    train(*opened, 0)
    assert hash_of(*plain) == hash_of(*opened)


def test_a_save_before_the_first_step_changes_nothing_and_resumes_exactly(uri: str) -> None:
    plain, saved, resumed = make(1), make(1), make(2)
    saver = checkpointer(uri)
    saver.open(state(*saved))
    saver.save(0, state(*saved), {})
    checkpointer(uri).open(state(*resumed))
    assert not resumed[1].state
    for run in (plain, saved, resumed):
        train(*run, 0, 1)
    assert hash_of(*saved) == hash_of(*plain)
    assert hash_of(*resumed) == hash_of(*plain)


def test_an_optimizer_that_has_stepped_is_set_back_to_one_that_has_not(uri: str) -> None:
    fresh, used = make(1), make(2)
    saver = checkpointer(uri)
    saver.open(state(*fresh))
    saver.save(0, state(*fresh), {})
    train(*used, 0, 1, 2)
    checkpointer(uri).open(state(*used))
    train(*fresh, 0)
    train(*used, 0)
    assert hash_of(*used) == hash_of(*fresh)


def test_the_sgd_optimizer_too(uri: str) -> None:
    for momentum in (0.0, 0.9):
        place = f"{uri}-{momentum}"
        models = [make(seed)[0] for seed in (1, 2)]
        runs = [(m, torch.optim.SGD(m.parameters(), lr=0.1, momentum=momentum)) for m in models]
        train(*runs[0], 0, 1)
        saver = checkpointer(place)
        saver.open(state(*make(3)))
        saver.save(2, state(*runs[0]), {})
        checkpointer(place).open(state(*runs[1]))
        for run in runs:
            train(*run, 2, 3)
        assert hash_of(*runs[1]) == hash_of(*runs[0]), f"momentum {momentum}"


def test_a_plain_tree_of_tensors_is_loaded_in_place(uri: str) -> None:
    def tree(fill: float) -> dict[str, Any]:
        return {
            "ema": {"decay": fill, "list": [torch.full((2, 3), fill), {"n": 7 if fill else 0}]},
            "rng": torch.ones(4),
        }

    saver = checkpointer(uri)
    saver.open(tree(0.0))
    saver.save(1, tree(0.5), {})
    target = tree(0.0)
    tensor = target["ema"]["list"][0]
    checkpointer(uri).open(target)
    assert torch.equal(tensor, torch.full((2, 3), 0.5)), "not loaded in place"
    assert target["ema"]["decay"] == 0.5 and target["ema"]["list"][1] == {"n": 7}


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16,
                                   torch.float64, torch.complex64, torch.float8_e4m3fn])  # fmt: skip
def test_every_kind_of_number_and_layout_comes_back(dtype: torch.dtype) -> None:
    values = torch.arange(24).reshape(4, 6).to(dtype)
    saved = {
        "t": {"columns": values.t(), "one": values[0, 1], "none": values[:0], "strided": values[::2, ::3]}
    }
    place = f"memory://kinds-{dtype}"
    saver = checkpointer(place)
    saver.open({})
    saver.save(1, saved, {})
    loaded = {"t": {k: torch.zeros_like(v) for k, v in saved["t"].items()}}
    checkpointer(place).open(loaded)
    for key, tensor in saved["t"].items():
        assert torch.equal(loaded["t"][key].to(torch.complex128), tensor.to(torch.complex128)), key


def test_extra_comes_back_as_it_was(uri: str) -> None:
    import random

    extra = {
        "scheduler": {"last_epoch": 3, "_last_lr": [0.1], "base": None, "best": math.inf},
        "seeds": random.Random(1).getstate(),
        "note": "ä\n",
    }
    saver = checkpointer(uri)
    saver.open({})
    saver.save(1, {}, extra, {"val_nll": math.nan})
    restored = checkpointer(uri).open({}).restored
    assert restored is not None and restored.extra == extra
    random.Random().setstate(restored.extra["seeds"])
    assert restored.metrics == {"val_nll": None}


class Bomb:
    """What runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_objects_are_refused_in_state_and_extra_and_the_run_goes_on(uri: str, tmp_path: Path) -> None:
    saver = checkpointer(uri)
    saver.open({})
    bomb = Bomb(tmp_path / "marker")
    with pytest.raises(CheckpointError, match=r"model\.thing: .*never pickled objects; found .*Bomb"):
        saver.save(1, {"model": {"thing": bomb}}, {})
    with pytest.raises(CheckpointError, match=r"extra\.thing: .*never pickled objects"):
        saver.save(1, {}, {"thing": bomb})
    with pytest.raises(CheckpointError, match=r"model\.s: only dense tensors"):
        saver.save(1, {"model": {"s": torch.eye(3).to_sparse()}}, {})
    with pytest.raises(CheckpointError, match=r"state: .*keys, not 3"):
        saver.save(1, {3: torch.ones(1)}, {})  # type: ignore[dict-item]
    assert steps(uri) == []
    saver.save(2, {"model": {"x": torch.ones(1)}}, {})
    assert steps(uri) == [2]
    assert len(RunStore(Location(uri)).location.names("packs")) == 1, "a failed save left its packs"


def test_another_runs_checkpoints_are_refused(uri: str) -> None:
    saver = checkpointer(uri)
    saver.open({})
    saver.save(1, {"x": torch.ones(1)}, {})
    mine = {"x": torch.zeros(1)}
    with pytest.raises(RefusedError, match=r"model\.dim: 16 -> 32"):
        checkpointer(uri, fingerprint={"seed": 1, "model": {"dim": 32}}).open(mine)
    assert mine["x"].item() == 0
    saver.save(2, mine, {})  # and the run whose place it is was not disturbed
    assert steps(uri) == [1, 2]


def test_a_copy_that_comes_while_a_world_opens_is_not_resumed_from(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after the identity was checked and the generation was taken, which does not know of it."""
    foreign = f"{uri}-foreign"
    for step in (1, 2):
        saver = checkpointer(foreign, fingerprint={"seed": 2})
        saver.open({"model": {"w": torch.ones(3)}})
        saver.save(step, {"model": {"w": torch.full((3,), 1.0 + step)}}, {})
    source, here, claim = RunStore(Location(foreign)), RunStore(Location(uri)), RunStore.claim
    newest = source.valid()[-1]

    def copied(store: RunStore, *arguments: Any) -> Any:
        taken = claim(store, *arguments)
        here.location.put(newest.pack(0), source.location.get(newest.pack(0)))
        here.location.put(newest.manifest, source.manifest_bytes(newest))
        return taken

    monkeypatch.setattr(RunStore, "claim", copied)
    tree = {"model": {"w": torch.zeros(3)}}
    assert checkpointer(uri).open(tree).restored is None, "a run resumed from another run's weights"
    assert not tree["model"]["w"].any()


def test_a_fenced_writer_learns_it_and_leaves_nothing_that_counts(uri: str) -> None:
    saver = checkpointer(uri)
    saver.open({})
    saver.save(1, {"x": torch.ones(1)}, {})
    later = checkpointer(uri)
    later.open({"x": torch.zeros(1)})
    with pytest.raises(FencedError):
        saver.save(2, {"x": torch.ones(1)}, {})
    assert steps(uri) == [1]
    later.save(2, {"x": torch.zeros(1)}, {})
    assert len(RunStore(Location(uri)).location.names("packs")) == 2, "the zombie's packs were not swept"


def test_what_does_not_fit_is_named(uri: str) -> None:
    saver = checkpointer(uri)
    run = make(1)
    train(*run, 0)
    saver.open(state(*make(1)))
    saver.save(1, state(*run), {})
    with pytest.raises(
        CheckpointError, match=r"does not fit this model: .*float32\[50, 16\] there and float32\[50, 8\] here"
    ):
        checkpointer(uri).open(state(*make(1, width=8)))
    with pytest.raises(CheckpointError, match=r"model\.extra\.weight is not in the checkpoint"):
        model = make(1)[0]
        model.add_module("extra", torch.nn.Linear(2, 2))
        checkpointer(uri).open({"model": ModelPart(model)})
    with pytest.raises(CheckpointError, match=r"model\.scale is only in the checkpoint"):
        model = make(1)[0]
        del model.scale
        checkpointer(uri).open({"model": ModelPart(model)})


def test_latest_and_best_are_kept(uri: str) -> None:
    saver = checkpointer(uri, keep=KeepConfig(latest=2, best=1, grace_seconds=0))
    saver.open({})
    for step, nll in enumerate([3.0, 1.0, 2.0, math.nan, 2.5]):
        saver.save(step, {"x": torch.tensor(float(step))}, {}, {"val_nll": nll})
    assert steps(uri) == [1, 3, 4]


def test_tied_and_equal_tensors_are_stored_once(uri: str) -> None:
    saver = checkpointer(uri, compression=0)
    saver.open({})
    noise = torch.randn(1000)
    saved = saver.save(1, {"a": noise, "b": noise, "c": noise.clone()}, {})
    assert saved.bytes == 4000


def test_incompressible_tensors_are_stored_raw_and_others_small(uri: str) -> None:
    saver = checkpointer(uri, compression=3)
    saver.open({})
    noise = torch.randint(256, (100_000,), dtype=torch.uint8)
    assert saver.save(1, {"x": noise}, {}).bytes == 100_000
    assert saver.save(2, {"x": torch.zeros(100_000)}, {}).bytes < 1000


def test_a_failing_store_costs_one_save_and_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """At each operation in turn the disk is full: reported, nothing counts, the next save works."""
    at = 0
    while True:
        FaultyFileSystem.clear()
        saver = checkpointer("faulty://run", keep=KeepConfig(latest=2, best=0, grace_seconds=0))
        saver.open({})
        for step in (1, 2):
            saver.save(step, {"x": torch.randn(10)}, {})

        met: list[str] = []

        def full(number: int, kind: str, path: str, at: int = at, met: list[str] = met) -> None:
            if number == at and kind != "delete":
                met.append(f"{kind} {path.split('/')[2]}")
                raise OSError(28, "No space left on device")

        FaultyFileSystem.reset(full)
        failed = False
        try:
            saver.save(3, {"x": torch.randn(10)}, {})
        except CheckpointError as error:
            failed = True
            assert "no space is left there" in str(error)
            # A store that has taken the manifest but did not say so holds a whole checkpoint.
            arrived = [3] if met == ["answer manifests"] else []
            assert steps("faulty://run") == [1, 2, *arrived], "a failed save counts"
        done = FaultyFileSystem.operations
        FaultyFileSystem.reset()
        saver.save(4, {"x": torch.randn(10)}, {})
        assert steps("faulty://run") == ([2, 4] if failed and not arrived else [3, 4])
        assert len(RunStore(Location("faulty://run")).location.names("packs")) == 2, "leftovers stayed"
        loaded = {"x": torch.zeros(10)}
        assert checkpointer("faulty://run").open(loaded).restored is not None
        if at >= done:
            break
        at += 1
    FaultyFileSystem.clear()
    assert at >= 4, "the fault was never met"


def test_retention_that_fails_is_no_failed_save(caplog: pytest.LogCaptureFixture) -> None:
    def stuck(number: int, kind: str, path: str) -> None:
        if kind == "delete":
            raise PermissionError(13, "Access Denied")

    FaultyFileSystem.clear()
    FaultyFileSystem.reset(stuck)
    saver = checkpointer("faulty://run", keep=KeepConfig(latest=1, best=0, grace_seconds=0))
    saver.open({})
    with caplog.at_level(logging.WARNING):
        for step in (1, 2, 3):
            saver.save(step, {"x": torch.ones(1)}, {})
    assert "old checkpoints stay for now" in caplog.text and "Access Denied" in caplog.text
    FaultyFileSystem.reset()
    saver.save(4, {"x": torch.ones(1)}, {})
    assert steps("faulty://run") == [4]
    FaultyFileSystem.clear()


def test_an_unwritable_place_is_found_by_the_probe(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written") as error:
        checkpointer(str(tmp_path / "file" / "run")).probe()
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="foo"):
        checkpointer("foo://bucket/run")


def test_the_probe_leaves_nothing(tmp_path: Path) -> None:
    checkpointer(str(tmp_path / "run")).probe()
    # The folder stays: another run may be about to put its own probe there.
    left = [path for path in (tmp_path / "run").rglob("*") if not path.is_dir()]
    assert left == [], f"expected no object, found {left}"


def test_manifests_say_which_code_wrote_them(uri: str) -> None:
    saver = checkpointer(uri)
    saver.open({})
    saver.save(1, {"x": torch.ones(1)}, {})
    store = RunStore(Location(uri))
    manifest = store.manifest(store.valid()[0])
    assert manifest.versions["torch"] == torch.__version__
    assert manifest.identity == {"seed": 1, "model": {"dim": 16}} and manifest.world == 1
