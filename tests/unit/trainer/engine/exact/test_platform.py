"""Machines that compute other bits are refused by name; so are models and options that cannot be exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from aurl_trainer.config.document import Document
from aurl_trainer.config.engine import EngineConfig
from aurl_trainer.engine.exact.platform import KERNELS, PROCESSORS, compare, summary, this_platform
from aurl_trainer.engine.exact.refusals import refuse_inexact
from aurl_trainer.errors import ConfigError, RefusedError


def test_a_machine_is_like_itself() -> None:
    here = this_platform(torch.device("cpu"))
    assert compare(here, this_platform(torch.device("cpu")), "before", "now") == []
    assert here["threads"] == str(torch.get_num_threads())


@pytest.mark.parametrize("name", ["torch", "device", "threads", "capability", "instructions", "settings"])
def test_what_decides_bits_is_refused_by_name(name: str) -> None:
    here = this_platform(torch.device("cpu"))
    with pytest.raises(RefusedError, match=rf"machines that compute alike(.|\n)*{name}: .* in before, .*now"):
        compare(here, here | {name: "another"}, "before", "now")


def test_another_model_of_cpu_is_a_warning() -> None:
    here = this_platform(torch.device("cpu"))
    (warning,) = compare(here, here | {"cpu": "another"}, "checkpoint 1", "this world")
    assert "warning: exact results are not sure: cpu:" in warning and "'another' in this world" in warning


def test_a_record_of_another_version_is_named_and_not_a_traceback() -> None:
    here = this_platform(torch.device("cpu"))
    with pytest.raises(RefusedError, match="cuda: '13' in before, none in now"):
        compare(here | {"cuda": "13"}, here, "before", "now")


def test_a_summary_tells_unlike_worlds_apart() -> None:
    here = this_platform(torch.device("cpu"))
    for name in here.keys() - {"cpu"}:
        other = here | {name: "another"}
        assert summary([other])[KERNELS] != summary([here])[KERNELS], name
        assert summary([here, other])[KERNELS] != summary([here, here])[KERNELS], name
        # The shards of rank 0 are computed by another kernel then.
        assert summary([here, other])[KERNELS] != summary([other, here])[KERNELS], name
    newer = here | {"cpu": "Newer, l2 4096"}
    told = summary([here, newer])
    assert told[KERNELS] == summary([here])[KERNELS] == summary([here] * 5)[KERNELS]
    assert told[PROCESSORS] != summary([here])[PROCESSORS] and ", Newer (" in told[PROCESSORS]


def test_a_setting_that_chooses_other_kernels_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    before = summary([this_platform(torch.device("cpu"))])
    monkeypatch.setenv("MKL_ENABLE_INSTRUCTIONS", "SSE4_2")
    assert summary([this_platform(torch.device("cpu"))])[KERNELS] != before[KERNELS]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "threads must be given, for example threads: 1"),
        ({"threads": 1, "precision": "fp16"}, "precision fp16 is not possible"),
        ({"threads": 1, "deterministic": False}, "deterministic must be true"),
    ],
)
def test_options_that_cannot_be_exact_are_refused_by_name(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"with reproducibility: exact, .*{words}"):
        Document({"reproducibility": "exact", **fields}, "job.yaml").validate(EngineConfig)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "1 is a BatchNorm1d"),
        (nn.Sequential(nn.SyncBatchNorm(2, track_running_stats=False)), "0 is a SyncBatchNorm"),
        (nn.Embedding(3, 2, sparse=True), "the model has sparse gradients"),
        (nn.Linear(2, 2, dtype=torch.bfloat16), "weight is bfloat16; parameters must be float32"),
        (nn.Linear(2, 2).requires_grad_(False), "nothing to train"),
    ],
)
def test_models_that_cannot_be_exact_are_refused_by_name(model: nn.Module, words: str) -> None:
    with pytest.raises(ConfigError, match=f"engine.reproducibility: exact is not possible: .*{words}"):
        refuse_inexact(model)
