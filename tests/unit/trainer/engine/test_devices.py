"""Which device a rank takes, what its world talks over, and how a device without memory is told."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from aurl_operator.backends.local.process.ports import free_port
from aurl_trainer.contract import Cause, ExitCode
from aurl_trainer.engine.parallel import World, pick_backend
from aurl_trainer.engine.survival.exits import _first_start, classify
from aurl_trainer.errors import CheckpointError, ConfigError, GoneError, UnavailableError
from aurl_trainer.monitor.records import RecordWriter


@pytest.mark.parametrize(
    ("devices", "backend"),
    [
        (["/a", "/b"], "nccl"),
        (["/a", "/a"], "gloo"),
        (["one/a", "two/a"], "nccl"),
        (["/a", ""], "gloo"),
        (["", ""], "gloo"),
    ],
)
def test_nccl_is_for_ranks_with_a_gpu_each(devices: list[str], backend: str) -> None:
    assert pick_backend(devices) == backend


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_cuda_that_is_wanted_and_missing_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"engine\.device: this rank sees no CUDA device"):
        World.join("cuda")
    assert World.join("auto").device.type == "cpu"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'", Cause.OUT_OF_MEMORY),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", Cause.OUT_OF_MEMORY),
        ("CUDA error: device-side assert triggered", Cause.CRASH),
    ],
)
def test_a_device_without_memory_is_told_as_such(text: str, cause: Cause) -> None:
    found, code = classify(RuntimeError(text), first_start=False)
    assert found is cause
    assert (code == ExitCode.OUT_OF_MEMORY) == (cause is Cause.OUT_OF_MEMORY)


def test_a_place_that_was_deleted_ends_the_run_and_no_other_trouble_with_its_place_does() -> None:
    """A restart would find nothing, and begin anew in silence."""
    assert classify(GoneError("deleted"), first_start=False) == (Cause.FINAL_ERROR, ExitCode.FINAL)
    assert classify(CheckpointError("denied"), first_start=False) == (Cause.CRASH, ExitCode.CRASH)
    assert classify(CheckpointError("denied"), first_start=True) == (Cause.FINAL_ERROR, ExitCode.FINAL)
    for first in (True, False):
        found = classify(UnavailableError("no answer"), first_start=first)
        assert found == (Cause.CRASH, ExitCode.CRASH), "a store that does not answer may come back"


@pytest.mark.parametrize("known", [{}, {"AURL_TRAINED": "1"}, {"AURL_ATTEMPT": "1"}, "records"])
def test_a_new_node_of_a_job_that_has_trained_is_no_first_start(
    known: dict[str, str] | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AURL_TRAINED", "AURL_ATTEMPT", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AURL_RUN_DIR", str(tmp_path))
    if isinstance(known, str):
        RecordWriter(tmp_path / "records", 1, 0).close()
    else:
        for name, value in known.items():
            monkeypatch.setenv(name, value)
    assert _first_start() == (known == {}), f"with {known}"


def _join(rank: int, port: int, answers: Any) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world = World.join("cpu")
    answers.put((dist.get_backend(), world.sum([[rank + 1.0]])))
    world.leave()


@pytest.mark.processes
def test_two_ranks_meet_by_torchruns_environment() -> None:
    context = multiprocessing.get_context("spawn")
    answers, port = context.Queue(), free_port()
    ranks = [context.Process(target=_join, args=(rank, port, answers), daemon=True) for rank in range(2)]
    for rank in ranks:
        rank.start()
    found = [answers.get(timeout=200) for _ in ranks]
    for rank in ranks:
        rank.join(60)
    assert found == [("gloo", [3.0])] * 2
    assert [rank.exitcode for rank in ranks] == [0, 0]
