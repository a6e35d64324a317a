"""The machine, as far as it decides the last bits of a shard's gradient.

Kernels choose their order of additions by instruction set, threads and caches; another library or device is
another order. So all ranks of an exact run must be alike, and it must go on where it began; of other runs the
records tell what the ranks were, so that only like worlds are compared bit by bit. Not here: what else a
checkpoint holds beside it (engine/state/run_state.py), the comparison (engine/resume/certificate.py).
"""

from __future__ import annotations

import hashlib
import json
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
KERNELS = "Kernels"
PROCESSORS = "Processors"
"""Of a summary, what decides bits, and what may."""

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


def platforms(world: World) -> list[Platform]:
    """Each rank's platform, by rank. All ranks call it together."""
    mine = this_platform(world.device)
    if world.size == 1:
        return [mine]
    found: list[Platform | None] = [None] * world.size
    dist.all_gather_object(found, mine)
    return [other or {} for other in found]


def agreed(world: World) -> Platform:
    """This rank's platform. Raises RefusedError on all ranks when another rank's differs."""
    found = platforms(world)
    for rank, other in enumerate(found):
        compare(found[0], other, "rank 0", f"rank {rank}")
    return found[world.rank]


def summary(found: Sequence[Platform]) -> dict[str, str]:
    """The ranks' platforms for records: two worlds of one size whose summaries are the same compute alike.

    Of ranks that are all alike it does not tell how many there are. Of others it tells their order, too: a
    rank's number decides which shards it computes.
    """
    kernels = [{k: v for k, v in p.items() if k not in _ONLY_WARNED} for p in found]
    processors = [{k: v for k, v in p.items() if k in _ONLY_WARNED} for p in found]
    return {
        KERNELS: _told(kernels, [p.get("capability", "") for p in found]),
        PROCESSORS: _told(processors, [p.get("cpu", "").partition(",")[0] for p in found]),
    }


def _told(found: Sequence[Platform], names: Sequence[str]) -> str:
    """The different `names`, and a digest of all that `found` says."""
    alike = all(p == found[0] for p in found)
    content = json.dumps(found[:1] if alike else list(found), sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return f"{', '.join(dict.fromkeys(names))} ({digest})"


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
