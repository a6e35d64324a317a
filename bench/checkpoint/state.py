"""What is saved: a model of a given size and AdamW's moments for it, as after some training.

Every tensor holds noise, as trained weights and moments do; only the values, never the speed, of a real model
are missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

LAYERS = 12
HEADS = 8


def model_of(parameters: int, device: torch.device) -> nn.Module:
    """A stack of transformer layers, 12 tensors each, with about so many parameters."""
    width = HEADS * max(1, round((parameters / (12 * LAYERS)) ** 0.5 / HEADS))
    with device:
        return nn.Sequential(*(nn.TransformerEncoderLayer(width, HEADS, 4 * width) for _ in range(LAYERS)))


def blank_of(parameters: int, device: torch.device) -> tuple[nn.Module, torch.optim.AdamW]:
    """Both without noise, for a load to write over; their memory is there and touched."""
    model = model_of(parameters, torch.device("meta"))
    model.to_empty(device=device)
    for parameter in model.parameters():
        parameter.detach().fill_(0.5)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4)


def optimizer_of(model: nn.Module) -> torch.optim.AdamW:
    """AdamW with a state for every parameter that is trained."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p] = {
                "step": torch.tensor(100.0),
                "exp_avg": torch.randn_like(p),
                "exp_avg_sq": torch.rand_like(p),
            }
    return optimizer


def tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """All that a full checkpoint holds."""
    found = [p.detach() for p in model.parameters()]
    return found + [v for s in optimizer.state.values() for v in s.values()]


def touch(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Changes everything that training changes, as a step does."""
    with torch.no_grad():
        trained = [p for p in model.parameters() if p.requires_grad]
        moments = [s[k] for s in optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")]
        for tensor in [*trained, *moments]:
            tensor.mul_(1.001)
    wait(next(model.parameters()).device)


def wait(device: torch.device) -> None:
    """Until the device has done all that it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def room_for(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Host memory to copy them into, touched: page-locked for a GPU's, all of it in one piece."""
    if tensors[0].device.type == "cpu":
        return [torch.zeros_like(t) for t in tensors]
    whole = torch.zeros(sum(-(-t.nbytes // 64) * 64 for t in tensors), dtype=torch.uint8, pin_memory=True)
    rooms, at = [], 0
    for tensor in tensors:
        rooms.append(whole[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        at += -(-tensor.nbytes // 64) * 64
    return rooms


def count(text: str) -> int:
    """`50M` as a number."""
    factor = {"K": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:].upper(), 1)
    return round(float(text[:-1] if factor > 1 else text) * factor)
