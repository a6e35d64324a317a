"""What of a model cannot be exact. The experiment's own fields are refused by config/engine.py.

Not here: buffers that training changes, which show only when it runs (gradients.py).
"""

from __future__ import annotations

import torch
from torch import nn

from aurl_trainer.errors import ConfigError


def refuse_inexact(model: nn.Module) -> None:
    """Raises ConfigError, a line for each thing that keeps the gradients of `model` from being exact."""
    lines = []
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.track_running_stats or isinstance(module, nn.SyncBatchNorm)
        ):
            lines.append(
                f"{name or 'the model'} is a {type(module).__name__}, which couples shards or counts them in "
                "order; use RMSNorm, LayerNorm or GroupNorm"
            )
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            lines.append(f"{name or 'the model'} has sparse gradients; use sparse=False")
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    lines += [
        f"{n} is {str(p.dtype).removeprefix('torch.')}; parameters must be float32"
        for n, p in trainable
        if p.dtype != torch.float32
    ]
    if not trainable:
        lines.append("the model has nothing to train")
    if lines:
        raise ConfigError([f"engine.reproducibility: exact is not possible: {line}" for line in lines])
