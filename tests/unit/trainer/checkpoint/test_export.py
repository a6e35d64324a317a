"""`aurl checkpoints export`: what safetensors' own loader finds is the model, bit by bit, of any sharding."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from aurl_trainer.checkpoint.parts import ModelPart
from aurl_trainer.commands.checkpoints.app import app
from aurl_trainer.config.model import ModelConfig
from aurl_trainer.errors import CheckpointError, DamagedError, MissingError, RefusedError
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from tests.unit.trainer.checkpoint.ranks.pool import RankPool
from tests.unit.trainer.checkpoint.ranks.test_sharded import build, load, train_and_save
from tests.unit.trainer.checkpoint.small import checkpointer, make, state, train


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *(str(a) for a in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape), key
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (found[key], tensor)]
        assert torch.equal(*bits), f"{key} differs"


def save(uri: str, state: dict[str, Any], extra: dict[str, Any] | None = None, step: int = 2) -> None:
    saver = checkpointer(uri)
    saver.open({})
    saver.save(step, state, extra or {}, {"val_nll": 1.0 / step})


@pytest.mark.processes
@pytest.mark.parametrize("how", ["fsdp", "ddp", "tensor"])
def test_a_checkpoint_of_two_ranks_is_one_file_of_whole_tensors(
    two: RankPool, tmp_path: Path, how: str
) -> None:
    saved = two.run(train_and_save, f"file://{tmp_path}/run", how)[0]
    assert isinstance(saved, str), saved
    alone = "plain without norm" if how == "tensor" else "plain"
    assert load(0, 1, f"file://{tmp_path}/run", alone) == saved
    model, _ = build(9, alone, 1)
    checkpointer(f"file://{tmp_path}/run").open({"model": ModelPart(model)})
    assert call(tmp_path / "run", "--to", tmp_path / "out.safetensors")[0] == 0
    same(load_file(tmp_path / "out.safetensors"), model.state_dict())


def test_one_rank_every_type_tied_weights_and_empty_tensors(tmp_path: Path) -> None:
    model, optimizer = make(1)
    train(model, optimizer, 1, 2)
    save(str(tmp_path / "run"), state(model, optimizer))
    code, said = call(tmp_path / "run", "--to", tmp_path / "out.safetensors")
    assert code == 0 and "weights of step 2, " in said
    found = load_file(tmp_path / "out.safetensors")
    assert found["frozen"].dtype is torch.bfloat16 and found["count"].dtype is torch.int64
    same(found, model.state_dict())


def test_large_tensors_come_in_pieces_and_an_average_is_asked_for_by_name(tmp_path: Path) -> None:
    torch.manual_seed(3)
    zeros = torch.zeros(3000, 2000)  # of some MB, compressed
    noise = torch.randn(2500, 2000, dtype=torch.float32)
    own = {"a": zeros, "b": noise, "c": torch.randn(7).bfloat16()}
    average = {k: t + 1 for k, t in own.items()}
    judged_by_average = {"experiment": {"engine": {"average": {"use": True}}}}
    save(str(tmp_path / "run"), {"model": own, "average": average}, judged_by_average)
    for arguments, expected in (
        ([], average),
        (["--weights", "model"], own),
        (["--weights", "average"], average),
    ):
        assert call(tmp_path / "run", "--to", tmp_path / "out.safetensors", "--overwrite", *arguments)[0] == 0
        same(load_file(tmp_path / "out.safetensors"), expected)


def test_the_file_alone_rebuilds_the_model(tmp_path: Path) -> None:
    config = ModelConfig(dim=32, layers=2, heads=4)
    torch.manual_seed(5)
    model = MusicTransformerVAEGAN(config, 30, 2, 16)
    extra = {
        "experiment": {"model": config.model_dump(mode="json")},
        "model": {"vocab_size": 30, "pad_id": 2, "max_length": 16, "tokenizer": "ab" * 32},
    }
    save(str(tmp_path / "run"), {"model": ModelPart(model)}, extra, step=12)
    code, said = call(f"{tmp_path}/run@best", "--to", tmp_path / "out.safetensors", "--json")
    told = json.loads(said)
    assert (code, told["step"], told["weights"]) == (0, 12, "model")
    assert told["bytes"] == (tmp_path / "out.safetensors").stat().st_size
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        about = file.metadata()
    assert about == told["metadata"]
    assert (about["run"], about["step"], about["tokenizer"]) == ("small", "12", "ab" * 32)
    assert about["checkpoint"] == told["checkpoint"] and "aurl" in json.loads(about["versions"])
    numbers = [int(about[name]) for name in ("vocab_size", "pad_id", "max_length")]
    again = MusicTransformerVAEGAN(ModelConfig.model_validate_json(about["model"]), *numbers)
    again.load_state_dict(load_file(tmp_path / "out.safetensors"))
    same(dict(again.state_dict()), dict(model.state_dict()))


def test_of_a_damaged_checkpoint_no_file_is_left_and_an_older_one_is_taken(tmp_path: Path) -> None:
    saver = checkpointer(str(tmp_path / "run"), whole_every=1)
    saver.open({})
    generator = torch.Generator().manual_seed(1)
    weights = {"a": torch.randn(3_000_000, generator=generator), "b": torch.randn(5, generator=generator)}
    saver.save(1, {"model": weights}, {})
    saver.save(2, {"model": {k: t + 1 for k, t in weights.items()}}, {})
    (pack,) = (tmp_path / "run" / "packs").glob("v000002-*/*.pack")
    data = bytearray(pack.read_bytes())
    data[9_000_000] ^= 1
    pack.write_bytes(data)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "model.safetensors"
    with pytest.raises(DamagedError, match=r"model\.a"):
        call(f"{tmp_path}/run@step:2", "--to", target)
    assert list(target.parent.iterdir()) == [], "something that is not whole was left"
    assert "step 1" in call(tmp_path / "run", "--to", target)[1]
    assert list(target.parent.iterdir()) == [target]
    same(load_file(target), weights)
    before = target.read_bytes()
    with pytest.raises(DamagedError):
        call(f"{tmp_path}/run@step:2", "--to", target, "--overwrite")
    assert target.read_bytes() == before, "a whole file was given for one that is not"


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    save(str(tmp_path / "run"), {"model": {"a": torch.ones(2)}})
    (tmp_path / "there.safetensors").write_text("mine")
    with pytest.raises(RefusedError, match="is there; name another"):
        call(tmp_path / "run", "--to", tmp_path / "there.safetensors")
    assert (tmp_path / "there.safetensors").read_text() == "mine"
    with pytest.raises(MissingError, match="no such folder"):
        call(tmp_path / "run", "--to", tmp_path / "none" / "a.safetensors")
    with pytest.raises(CheckpointError, match="holds no averaged weights"):
        call(tmp_path / "run", "--to", tmp_path / "a.safetensors", "--weights", "average")
    assert call(tmp_path / "run", "--to", "s3://bucket/a.safetensors")[0] == 2
    save(str(tmp_path / "other"), {"optimizer": {"a": torch.ones(2)}})
    with pytest.raises(CheckpointError, match="holds no part 'model'"):
        call(tmp_path / "other", "--to", tmp_path / "a.safetensors")


def test_export_loads_no_torch(tmp_path: Path) -> None:
    save(str(tmp_path / "run"), {"model": {"a": torch.ones(2)}})
    code = (
        "import sys\n"
        "from aurl_trainer.commands.checkpoints.app import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    arguments = ["export", str(tmp_path / "run"), "--to", str(tmp_path / "a.safetensors")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"torch was loaded, or it failed: {done.stderr}"
    assert (tmp_path / "a.safetensors").exists()
