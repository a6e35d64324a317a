"""`aurl checkpoints average`: the arithmetic, what does not fit, and where it is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from aurl_trainer.checkpoint import averaging
from aurl_trainer.checkpoint.transfer import read
from aurl_trainer.commands.checkpoints.app import app
from aurl_trainer.commands.checkpoints.derived.averaging import beside
from aurl_trainer.errors import CheckpointError, DamagedError, RefusedError
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.presence import admit
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.checkpoint.small import checkpointer


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["average", *(str(a) for a in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def tensors(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(40, 30, generator=draw),
        "half": torch.randn(50, generator=draw).bfloat16(),
        "scale": torch.randn((), generator=draw),
        "wave": torch.randn(4, dtype=torch.complex64, generator=draw),
        "count": torch.tensor(seed),
        "mask": torch.tensor([seed % 2 == 0]),
        "nothing": torch.empty(0, 4),
    }


def save(uri: Path, *seeds: int, about: dict[str, Any] | None = None, **parts: Any) -> None:
    """A run whose checkpoints are of steps and weights `seeds`."""
    saver = checkpointer(str(uri))
    saver.open({})
    for seed in seeds:
        saver.save(seed, {"model": tensors(seed), **parts}, {"model": about or {}}, {})


def saved_at(uri: Path) -> tuple[Manifest, dict[str, torch.Tensor]]:
    store = RunStore(Location(str(uri)))
    (name,) = store.valid()
    found = {k: torch.zeros_like(t) for k, t in tensors(1).items()}
    read({"model": found}, store.location, store.manifest(name))
    return store.manifest(name), found


@pytest.mark.parametrize("bunch", [1, averaging.BUNCH_BYTES])
def test_the_mean_is_that_of_float64_and_whole_numbers_are_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bunch: int
) -> None:
    monkeypatch.setattr(averaging, "BUNCH_BYTES", bunch)
    save(tmp_path / "run", 1, 2, 3, 4)
    code, said = call(tmp_path / "run", "--last", 3)
    place = tmp_path / "run-average-4"
    assert code == 0 and f"saved at {place}, as step 4" in said
    assert "mean is not measured: " in said and "does not say which experiment" in said
    manifest, found = saved_at(place)
    for key, tensor in tensors(4).items():
        if tensor.is_floating_point() or tensor.is_complex():
            wide = torch.complex128 if tensor.is_complex() else torch.float64
            stacked = torch.stack([tensors(seed)[key].to(wide) for seed in (2, 3, 4)])
            tensor = (stacked.sum(0) / 3).to(tensor.dtype)
        assert torch.equal(found[key], tensor), f"{key}: {found[key]} in place of {tensor}"
    parents = manifest.extra["average_of"]
    assert [p["step"] for p in parents] == [2, 3, 4]
    assert all(p["weights"] == "model" and p["run"] == "small" and p["val_nll"] is None for p in parents)
    admit(RunStore(Location(str(place))), "another", pause=lambda seconds: pytest.fail("whoever comes waits"))
    assert manifest.metrics == {} and manifest.step == 4 and manifest.run == "small-average"


def test_a_step_that_was_saved_twice_counts_once(tmp_path: Path) -> None:
    save(tmp_path / "run", 2, 3)
    save(tmp_path / "run", 3)  # another generation, which goes on from step 3
    code, said = call(tmp_path / "run", "--last", 2, "--json")
    parents = [(p["step"], p["checkpoint"][:7]) for p in json.loads(said)["parents"]]
    assert code == 0 and parents == [(2, "v000001"), (3, "v000003")]
    named = call(f"{tmp_path}/run@v2", f"{tmp_path}/run@v3", "--to", tmp_path / "named")
    assert named[0] == 0, "whoever names both means both"


def test_chosen_ones_of_several_runs_in_any_order(tmp_path: Path) -> None:
    save(tmp_path / "a", 1, 2, average=tensors(5))
    save(tmp_path / "b", 3, average=tensors(7))
    both = [f"{tmp_path}/b", f"{tmp_path}/a@step:1"]
    found: list[dict[str, torch.Tensor]] = []
    for order in (both, both[::-1]):
        place = tmp_path / f"out-{len(found)}"
        code, said = call(*order, "--to", place, "--weights", "average", "--json")
        told = json.loads(said)
        assert code == 0 and told["uri"] == str(place)
        assert [(p["step"], p["weights"]) for p in told["parents"]] == [(1, "average"), (3, "average")]
        found.append(saved_at(place)[1])
    expected = ((tensors(5)["a.weight"].double() + tensors(7)["a.weight"].double()) / 2).float()
    assert torch.equal(found[0]["a.weight"], expected)
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0]), "the order changes the mean"
    assert found[0]["count"] == 7, "of the newest parent's average"


def test_what_does_not_fit_is_named_and_nothing_is_saved(tmp_path: Path) -> None:
    save(tmp_path / "run", 1, 2, about={"tokenizer": "a" * 64})
    save(tmp_path / "foreign", 3, about={"tokenizer": "b" * 64})
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match=r"run@v1 \(step 1\) does not go with .*another tokenizer"):
        call(f"{tmp_path}/run@step:1", tmp_path / "foreign", "--to", out)
    wide = checkpointer(str(tmp_path / "wide"))
    wide.open({})
    wide.save(5, {"model": {**tensors(1), "scale": torch.ones(2), "more": torch.ones(1)}}, {}, {})
    with pytest.raises(CheckpointError, match=r"more is only in one .*scale is float32\[\] -> float32\[2\]"):
        call(tmp_path / "run", tmp_path / "wide", "--to", out)
    deep = checkpointer(str(tmp_path / "deep"))
    deep.open({})
    deep.save(5, {"model": tensors(5)}, {"experiment": {"model": {"dim": 16, "heads": 2}}}, {})
    with pytest.raises(CheckpointError, match=r"model.heads: \(absent\) -> 2"):
        call(tmp_path / "run", tmp_path / "deep", "--to", out)
    with pytest.raises(CheckpointError, match="holds no averaged weights"):
        call(tmp_path / "run", "--last", 2, "--to", out, "--weights", "average")
    with pytest.raises(CheckpointError, match="has checkpoints of 2 steps, not 3"):
        call(tmp_path / "run", "--last", 3, "--to", out)
    with pytest.raises(RefusedError, match="checkpoints are there already"):
        call(tmp_path / "run", "--last", 2, "--to", tmp_path / "wide")
    for wrong in (
        [tmp_path / "run"],
        [tmp_path / "run", f"{tmp_path}/run@step:2"],
        [f"{tmp_path}/run@v1", "--last", 2],
        [tmp_path / "run", "--last", 1],
    ):
        assert call(*wrong, "--to", out)[0] == 2, wrong
    assert not out.exists()


def test_it_is_not_saved_into_a_runs_directory(tmp_path: Path) -> None:
    """Whoever named the run would find the mean, and none of the run's own."""
    save(tmp_path / "run" / "checkpoints", 1, 2)
    with pytest.raises(RefusedError, match="is the directory of a run"):
        call(tmp_path / "run", "--last", 2, "--to", tmp_path / "run", "--no-measure")
    with pytest.raises(RefusedError, match="expected a place to save to"):
        call(tmp_path / "run", "--last", 2, "--to", "", "--no-measure")


def test_a_damaged_parent_is_named_and_nothing_is_saved(tmp_path: Path) -> None:
    save(tmp_path / "run", 1, 2, 3)
    (pack,) = (tmp_path / "run" / "packs").glob("v000002-*/*.pack")
    data = bytearray(pack.read_bytes())
    data[100] ^= 1
    pack.write_bytes(data)
    with pytest.raises(DamagedError, match="v000002-"):
        call(tmp_path / "run", "--last", 2)
    assert not (tmp_path / "run-average-3").exists()


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("runs/bach/checkpoints", "runs/bach-average-9"),
        ("runs/bach", "runs/bach-average-9"),
        ("s3://bucket/bach/", "s3://bucket/bach-average-9"),
        ("s3://bucket/checkpoints", "s3://bucket/average-9"),
        ("s3://bucket", "s3://bucket/average-9"),
        ("file:///data/bach/checkpoints", "file:///data/bach-average-9"),
    ],
)
def test_it_lies_beside_its_run(uri: str, place: str) -> None:
    assert beside(uri, 9) == place
