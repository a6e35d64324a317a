"""The `setup` record: what is trained, on what music, and on what machine, for the reader of a report.

Not here: the configuration, which job.yaml holds, and what is measured while it runs.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sized
from importlib.metadata import version
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from aurl_trainer.data.prepared import PreparedData

MOST_REJECTED = 100
"""Rejected files that are named; all are counted."""


def describe(
    model: nn.Module,
    prepared: PreparedData,
    training: Sized,
    validation: Sized,
    device: torch.device,
    computing: Mapping[str, str],
) -> dict[str, Any]:
    """The fields of a `setup` record (records.Setup). `computing`: what decides bits, on all ranks."""
    splits = [piece.split for piece in prepared.pieces]
    rejected = [{"file": r.file, "reason": r.reason} for r in prepared.rejected[:MOST_REJECTED]]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": prepared.vocab_size,
        "train_pieces": splits.count("train"),
        "validation_pieces": splits.count("validation"),
        "train_samples": len(training),
        "validation_samples": len(validation),
        "rejected": rejected,
        "rejected_total": len(prepared.rejected),
        "versions": {
            "Aurl": version("aurl"),
            "Python": platform.python_version(),
            "PyTorch": torch.__version__,
            "Device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            **({"Between ranks": dist.get_backend()} if dist.is_initialized() else {}),
            "CPU threads a rank": str(torch.get_num_threads()),
            **computing,
            "Platform": platform.platform(terse=True),
        },
    }
