"""The machine, as far as it decides the last bits of a shard's gradient.

Kernels choose their order of additions by instruction set, threads and caches; another library or device is
another order. So all ranks must be alike, and a run must go on where it began. Not here: what a checkpoint
holds (engine/state/run_state.py), which keeps this record.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist

from aurl_trainer.engine.parallel import World
from aurl_trainer.errors import RefusedError

Platform = dict[str, str]
"""Plain text by name, as it stands in a checkpoint."""

_SETTINGS = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "CUBLAS_WORKSPACE_CONFIG",
)
_ONLY_WARNED = ("cpu",)
"""The model of CPU and its caches: kernels are chosen by instructions, but may cut matrices by cache size."""


def this_platform(device: torch.device) -> Platform:
    """What decides bits on this rank."""
    found = torch.cpu.get_capabilities()
    caches = [f"{k.removesuffix('_cache_size')} {v}" for k, v in found.items() if k.endswith("_cache_size")]
    platform = {
        "torch": str(torch.__version__),
        "device": device.type,
        "threads": str(torch.get_num_threads()),
        "architecture": str(found.get("architecture")),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "instructions": " ".join(sorted(name for name, has in found.items() if has is True)),
        "settings": " ".join(f"{name}={os.environ[name]}" for name in _SETTINGS if name in os.environ),
        "cpu": ", ".join([str(found.get("cpu_name")), *sorted(caches)]),
    }
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        platform["device"] = f"{torch.cuda.get_device_name(device)} ({major}.{minor})"
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        platform["cuda"] = f"{torch.version.cuda}, cuDNN {cudnn}"
    return platform


def agreed(world: World) -> Platform:
    """This rank's platform. Raises RefusedError on all ranks when another rank's differs."""
    mine = this_platform(world.device)
    found: list[Platform | None] = [mine]
    if world.size > 1:
        found = [None] * world.size
        dist.all_gather_object(found, mine)
    for rank, other in enumerate(found):
        compare(found[0] or {}, other or {}, "rank 0", f"rank {rank}")
    return mine


def compare(old: Platform, new: Platform, before: str, now: str) -> list[str]:
    """Warnings about what may change the last bits; raises RefusedError for what does."""
    names = sorted(old.keys() | new.keys())
    lines = {
        name: f"{name}: {_brief(old, new, name)} in {before}, {_brief(new, old, name)} in {now}"
        for name in names
        if old.get(name) != new.get(name)
    }
    refused = [line for name, line in lines.items() if name not in _ONLY_WARNED]
    if refused:
        raise RefusedError(
            "engine.reproducibility: exact needs machines that compute alike; give the run such machines, or "
            "begin one with reproducibility: world elsewhere:\n  " + "\n  ".join(refused)
        )
    return [f"warning: exact results are not sure: {line}" for line in lines.values()]


def _brief(platform: Platform, other: Platform, name: str) -> str:
    """The value; of a long list only what the other has not."""
    here, there = platform.get(name), other.get(name)
    if here is None or there is None or name != "instructions":
        return repr(here) if here else "none"
    return _words(here.split(), there.split())


def _words(here: Sequence[str], there: Sequence[str]) -> str:
    return " ".join(word for word in here if word not in there) or "none besides"
