"""Automatic mixed precision: autocast for the forward pass, a gradient scaler for fp16.

Weights, gradients and optimizer stay fp32. bf16 works on CPU and CUDA, fp16 on CUDA only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.amp.autocast_mode import autocast
from torch.amp.grad_scaler import GradScaler

from aurl_trainer.errors import ConfigError

LEAST_SCALE = 1e-4
"""The loss scale below which an overflow is no longer the scaler's matter. Each overflow halves it; the
gradients of a network that fp16 can hold overflow at no scale near this, and would vanish at it."""


class Precision:
    """How one run computes: `with precision.forward()`, `precision.backward(loss)`, `precision.step(...)`."""

    def __init__(self, kind: Literal["fp32", "bf16", "fp16"], device: torch.device) -> None:
        if kind == "fp16" and device.type != "cuda":
            raise ConfigError(["engine.precision: fp16 needs a CUDA device; use bf16 or fp32 on a CPU"])
        self._type = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[kind]
        self._device = device
        self._scaler = GradScaler(device.type, enabled=kind == "fp16")

    def forward(self) -> AbstractContextManager[Any]:
        """The context of a forward pass, the loss included."""
        if self._type is None:
            return nullcontext()
        return autocast(self._device.type, dtype=self._type)

    def backward(self, loss: Tensor) -> None:
        """Back-propagate the scalar `loss`, scaled where fp16 needs it."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, clip_norm: float | None) -> float:
        """Clip the global gradient norm and update the weights; a scaled overflow skips the update.

        Returns the norm before clipping.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip_norm or float("inf"), foreach=True)
        self._scaler.step(optimizer)
        self._scaler.update()
        return float(norm)

    @property
    def absorbs_overflow(self) -> bool:
        """Whether the scaler may still find a scale at which the gradient is finite.

        It follows from the scaler's state alone: alike on all ranks, and kept by checkpoints.
        """
        return self._scaler.is_enabled() and self._scaler.get_scale() >= LEAST_SCALE

    def state(self) -> dict[str, Any]:
        """The scaler's state, plain numbers; empty when there is none."""
        return dict(self._scaler.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        if state:
            self._scaler.load_state_dict(state)
