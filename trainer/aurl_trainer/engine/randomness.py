"""Random streams that depend on the run's position, not on who computes it.

Dropout and noise of a micro-batch are keyed by (seed, step, shard): the same shard of the same step draws
the same numbers on whatever rank and after whatever resume. Not here: the order of samples (data/batches.py).
"""

from __future__ import annotations

import hashlib
import os

import torch


def key(seed: int, *position: int | str) -> int:
    """A 63-bit seed from the run's seed and a position in it."""
    text = ":".join(str(p) for p in (seed, *position))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def seed_all(seed: int, *position: int | str) -> None:
    """Point torch's generators, CPU and CUDA, at the stream of this position."""
    torch.manual_seed(key(seed, *position))


def make_deterministic(enabled: bool) -> None:
    """Allow only deterministic kernels. Call before the first CUDA call: cuBLAS reads its setting there."""
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(enabled)
