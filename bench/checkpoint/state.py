"""What is saved: a model of a given size and AdamW's moments for it, as after some training.

Every tensor holds noise, as trained weights and moments do; only the values, never the speed, of a real model
are missing.
"""

from __future__ import annotations

import torch
from torch import nn

LAYERS = 12
HEADS = 8


def model_of(parameters: int) -> nn.Module:
    """A stack of transformer layers, 12 tensors each, with about so many parameters."""
    width = HEADS * max(1, round((parameters / (12 * LAYERS)) ** 0.5 / HEADS))
    return nn.Sequential(*(nn.TransformerEncoderLayer(width, HEADS, 4 * width) for _ in range(LAYERS)))


def blank_of(parameters: int) -> tuple[nn.Module, torch.optim.AdamW]:
    """Both without noise, for a load to write over; their memory is there and touched."""
    with torch.device("meta"):
        model = model_of(parameters)
    model.to_empty(device="cpu")
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


def count(text: str) -> int:
    """`50M` as a number."""
    factor = {"K": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:].upper(), 1)
    return round(float(text[:-1] if factor > 1 else text) * factor)
