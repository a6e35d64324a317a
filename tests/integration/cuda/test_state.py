"""A state on a GPU: staged, saved, loaded elsewhere, sharded; music drawn there is what the CPU draws."""

from __future__ import annotations

import mmap
import multiprocessing
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from aurl_trainer.checkpoint.agreement import Ranks
from aurl_trainer.checkpoint.saving.planning import Plans
from aurl_trainer.checkpoint.saving.staging import Staging, lock
from aurl_trainer.config.model import ModelConfig
from aurl_trainer.engine.randomness import make_deterministic, seed_all
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from aurl_trainer.model.sampling import generate
from tests.unit.trainer.checkpoint.ranks.test_sharded import Net, digest
from tests.unit.trainer.checkpoint.small import Small, checkpointer, hash_of, state


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    make_deterministic(True)
    yield
    torch.use_deterministic_algorithms(False)


def on(device: str, seed: int) -> tuple[Small, torch.optim.AdamW]:
    """As `make`, its weights and the optimizer's on `device`."""
    torch.manual_seed(seed)
    model = Small().to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1]},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return model, torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, device: str) -> None:
    x = torch.randint(50, (8,), generator=torch.Generator().manual_seed(1)).to(device)
    nn.functional.cross_entropy(model(x), x.roll(1)).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize(("before", "after"), [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_a_checkpoint_loads_on_another_device_to_the_bit(tmp_path: Path, before: str, after: str) -> None:
    uri = f"file://{tmp_path}/run"
    model, optimizer = on(before, 1)
    step(model, optimizer, before)
    saver = checkpointer(uri)
    saver.open({})
    saver.save(1, state(model, optimizer), {})

    other, fresh = on(after, 9)
    opened = checkpointer(uri).open(state(other, fresh))
    assert opened.restored is not None
    assert hash_of(other, fresh) == hash_of(model, optimizer)
    moments = [t.device.type for s in fresh.state.values() for k, t in s.items() if k != "step"]
    assert {p.device.type for p in other.parameters()} | set(moments) == {after}
    step(other, fresh, after)  # what was loaded can be trained


def test_what_is_staged_lies_in_page_locked_memory_and_follows_the_tensors() -> None:
    tensors = {
        "a": torch.randn(700, 30, device="cuda"),
        "t": torch.randn(40, 60, device="cuda").T,
        "s": torch.tensor(1.5, device="cuda"),
        "host": torch.randn(5),
    }
    plans, staging = Plans(Ranks(0, 1)), Staging()
    for _ in range(2):
        if not plans.take(tensors):
            plans.make()
        for box in staging.stage(plans.boxes()):
            found: Any = torch.frombuffer(bytearray(box.content), dtype=torch.float32)
            assert torch.equal(found.reshape(box.sizes), tensors[box.key].cpu()), box.key
        for tensor in tensors.values():
            tensor += 1
    assert staging.pinned


def test_memory_that_cannot_be_locked_fails_no_later_kernel() -> None:
    memory: Any = torch.frombuffer(mmap.mmap(-1, 1 << 20), dtype=torch.uint8)
    lock(memory.data_ptr(), memory.nbytes)
    with pytest.raises(RuntimeError, match="already"):
        lock(memory.data_ptr(), memory.nbytes)
    assert int(torch.ones(3, device="cuda").sum()) == 3
    torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())


def test_a_buffer_that_grows_or_goes_is_unlocked() -> None:
    plans = Plans(Ranks(0, 1))
    for _ in range(3):
        staging = Staging()
        for size in (10, 5000, 50):
            plans.take({"a": torch.ones(size, device="cuda")})
            plans.make()
            (box,) = staging.stage(plans.boxes())
            assert bytes(box.content) == torch.ones(size).numpy().tobytes()
        assert staging.pinned and staging.bytes == 20032


def test_music_is_drawn_under_deterministic_kernels_as_on_the_cpu() -> None:
    torch.manual_seed(3)
    model = MusicTransformerVAEGAN(ModelConfig(dim=32, layers=2, heads=2), 40, 0, 24)
    settings: dict[str, Any] = {"seed": 5, "temperature": 0.9, "top_p": 0.9}
    on_host = generate(model, [[1, 7], [1]], 40, **settings)
    assert generate(model.cuda(), [[1, 7], [1]], 40, **settings) == on_host


def test_a_position_draws_the_same_numbers_again() -> None:
    drawn = []
    for _ in range(2):
        seed_all(5, 17, 3)
        drawn.append((torch.rand(1000, device="cuda"), torch.rand(1000)))
        torch.rand(77, device="cuda")
    assert torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])


def _sharded(uri: str, meeting: str, answer: Any) -> None:
    """Trains and saves under FSDP2 in a world of one over nccl."""
    torch.cuda.set_device(0)
    dist.init_process_group("nccl", init_method=meeting, rank=0, world_size=1)
    torch.manual_seed(1)
    model = Net().cuda()
    fully_shard(model.up)
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=False)
    for number in range(2):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(number)).cuda()
        model(x).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    saver = checkpointer(uri, group=dist.new_group(backend="gloo"))
    saver.open({})
    saver.save(2, state(model, optimizer), {})
    answer.put(digest(model, optimizer))
    dist.destroy_process_group()


@pytest.mark.processes
def test_a_model_sharded_over_nccl_loads_whole_on_the_cpu(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/run"
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_sharded, args=(uri, f"file://{tmp_path}/meeting", answer), daemon=True)
    process.start()
    process.join(200)
    assert process.exitcode == 0
    try:
        saved = answer.get(timeout=10)
    except queue.Empty:
        pytest.fail("the rank has told nothing")
    torch.manual_seed(9)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=False)
    opened = checkpointer(uri).open(state(model, optimizer))
    assert opened.restored is not None and digest(model, optimizer) == saved
