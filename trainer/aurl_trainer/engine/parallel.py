"""The world a rank trains in: who it is, its device, its process group, the model spread over it.

Here: what torchrun's environment says, gloo or nccl, DDP, and the one small reduction at each step's end.
Not here: what the ranks agree on (survival/preemption.py), what they do (trainer.py), and gradients that do
not depend on the world (exact/).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from aurl_trainer.engine.exact.scalars import LIMBS, from_limbs, to_limbs
from aurl_trainer.errors import ConfigError

COLLECTIVE_TIMEOUT = timedelta(hours=24)
"""Longer than anything that a rank may take while it gives signs of life, as a load from a slow store does.
Heartbeats notice a lost peer, and one that hangs; this is only the last resort."""


@dataclass(frozen=True)
class World:
    """One formed world, seen from one rank. `size` 1 has no process group."""

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @classmethod
    def join(cls, device: Literal["auto", "cpu", "cuda"] = "auto") -> World:
        """Read torchrun's environment and form the process group; blocks until all ranks are there.

        Raises ConfigError when CUDA is wanted and there is none.
        """
        rank = int(os.environ.get("RANK", "0"))
        size = int(os.environ.get("WORLD_SIZE", "1"))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        chosen = pick_device(device, local_rank)
        if device == "cuda" and chosen.type != "cuda":
            raise ConfigError(
                ["engine.device: this rank sees no CUDA device; give the nodes one, or use auto or cpu"]
            )
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        if size > 1 and not dist.is_initialized():
            _form_group(chosen)
        return cls(rank, size, local_rank, chosen)

    @classmethod
    def alone(cls, device: Literal["auto", "cpu", "cuda"] = "auto") -> World:
        """A world of one rank, as in a notebook."""
        return cls(0, 1, 0, pick_device(device, 0))

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The group of all ranks; None in a world of one."""
        return dist.group.WORLD if self.size > 1 else None

    def host_group(self) -> dist.ProcessGroup | None:
        """A group that moves objects: gloo's own where training uses nccl. All ranks call it, once."""
        if self.size > 1 and dist.get_backend() == "nccl":
            group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
            return group
        return self.group

    def wrap(self, model: nn.Module, *, average: bool = True) -> nn.Module:
        """`model` on the device, its gradients averaged over the world by DDP; itself in a world of one.

        Without `average` it stays itself, and every rank gets rank 0's weights and buffers.
        """
        model = model.to(self.device)
        if self.size == 1:
            return model
        if not average:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), 0)
            return model
        ids = [self.device] if self.device.type == "cuda" else None
        replica = DistributedDataParallel(
            model, device_ids=ids, gradient_as_bucket_view=True, forward_sync_buffers=False
        )
        _settle_buckets(replica)
        return replica

    def sum(self, addends: Sequence[Sequence[float]]) -> list[float]:
        """The sum of each list of `addends` over all ranks: exact, and rounded once to the nearest double.

        So it depends neither on the order of the addends nor on which rank has which. Every rank gives as
        many lists, of any lengths.
        """
        limbs = [to_limbs(numbers) for numbers in addends]
        if self.size > 1:
            total = torch.tensor(limbs, dtype=torch.int64, device=self.device).view(-1, LIMBS)
            dist.all_reduce(total)
            limbs = total.tolist()
        return [from_limbs(numbers) for numbers in limbs]

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            self.sum([[]])

    def leave(self) -> None:
        """Take the process group down, in an orderly end only."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _settle_buckets(model: DistributedDataParallel) -> None:
    """Let DDP lay out its buckets for good before the first step: one backward pass, of zeros.

    Its first pass uses a layout of its own, and the order in which gradients arrive in it makes that of all
    later ones. From three ranks on, the order of an element's sum depends on where it lies: a resumed run's
    first step would have other bits than the same step in the middle of a run. Here they arrive in the
    reverse order of the model's parameters, which is nearly that of real backward passes.
    """
    parameters = [p for p in model.module.parameters() if p.requires_grad]
    model.reducer.prepare_for_backward([])
    for parameter in reversed(parameters):
        parameter.backward(torch.zeros_like(parameter))
    for parameter in parameters:
        parameter.grad = None


@contextmanager
def synchronised(model: nn.Module, last: bool) -> Iterator[None]:
    """Reduce gradients in this backward pass only if it is the step's `last` micro-step."""
    if last or not isinstance(model, DistributedDataParallel):
        yield
    else:
        with model.no_sync():
            yield


def bare(model: nn.Module) -> nn.Module:
    """The model inside its DDP wrapper."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def pick_device(wanted: Literal["auto", "cpu", "cuda"], local_rank: int) -> torch.device:
    """This rank's device: CUDA unless the CPU is wanted or there is none. Local ranks may share it."""
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def _form_group(device: torch.device) -> None:
    """The default process group, over what all ranks' devices allow."""
    store, rank, size = next(rendezvous("env://", timeout=COLLECTIVE_TIMEOUT))
    store.set(f"aurl/device/{rank}", _identity(device))
    backend = pick_backend([store.get(f"aurl/device/{other}").decode() for other in range(size)])
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT)


def _identity(device: torch.device) -> str:
    """Of a GPU, what NCCL knows it by; empty for a CPU."""
    if device.type != "cuda":
        return ""
    return f"{os.environ.get('NCCL_HOSTID', '')}/{torch.cuda.get_device_properties(device).uuid}"


def pick_backend(devices: Sequence[str]) -> Literal["nccl", "gloo"]:
    """nccl where each rank has a GPU to itself, as it insists; else gloo, which takes GPUs' tensors, too.

    `devices` holds a name for each rank's GPU, or an empty string.
    """
    return "nccl" if all(devices) and len(set(devices)) == len(devices) else "gloo"


def all_finite(values: Tensor) -> bool:
    """Whether no element is infinite or NaN."""
    return bool(torch.isfinite(values).all())
