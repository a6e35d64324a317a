"""The most memory that tensors hold at once, as PyTorch's allocators tell of it: the same in every run.

What the process holds besides (code, caches of the C library, buffers of gloo's sockets) does not count.
"""

from __future__ import annotations

import gc
from types import TracebackType
from typing import Any, Self

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


class TensorMemory:
    """A context manager; after it `peak` is the most bytes on `device` beyond those held at its beginning."""

    def __init__(self, device: torch.device) -> None:
        self.peak = 0
        self._device = device
        self._held = 0
        self._profile: Any = None

    def __enter__(self) -> Self:
        gc.collect()  # what goes anyway is not to be taken for what is given back
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._held = torch.cuda.memory_allocated(self._device)
        else:
            self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._profile.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._profile is None:
            self.peak = torch.cuda.max_memory_allocated(self._device) - self._held
            return
        self._profile.__exit__(kind, error, trace)
        events = self._profile.profiler.kineto_results.events()
        changes = [e for e in events if e.name() == "[memory]" and e.device_type() == DeviceType.CPU]
        held = 0
        for change in sorted(changes, key=lambda e: e.start_ns()):
            held += change.nbytes()
            self.peak = max(self.peak, held)
