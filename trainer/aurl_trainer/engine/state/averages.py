"""Averaged weights beside the model's own: EMA (Polyak & Juditsky 1992) or SWA (arXiv:1803.05407).

The arithmetic is torch.optim.swa_utils'; when to update is a function of the step, so a resume cannot get it
wrong. Buffers are copied from the model at each update. Make it before the model is sharded or wrapped: it
copies the model. Where that is sharded then, shard `module` in the same way. Not here: averages of whole
checkpoints (checkpoint/averaging.py).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from aurl_trainer.checkpoint.parts import ModelPart
from aurl_trainer.config.average import AverageConfig


class AveragedWeights:
    """The average of `model`'s weights; a part of the training state, which is empty until it has begun.

    As a part it has the keys of the model itself. As a plain state it has the number of updates.
    """

    def __init__(self, model: nn.Module, config: AverageConfig) -> None:
        average = (
            get_swa_multi_avg_fn() if config.kind == "swa" else get_ema_multi_avg_fn(config.decay)  # type: ignore[no-untyped-call]
        )
        self._config = config
        self._model = model
        self._average = AveragedModel(model, multi_avg_fn=average)
        for parameter in self._average.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None

    @classmethod
    def of(cls, model: nn.Module, config: AverageConfig) -> AveragedWeights | None:
        """What `config` asks for; None for kind none."""
        return None if config.kind == "none" else cls(model, config)

    @property
    def module(self) -> nn.Module:
        """A model of the same kind that has the averaged weights."""
        found = self._average.module
        assert isinstance(found, nn.Module)
        return found

    @property
    def updates(self) -> int:
        """How many there were; without any, `module` holds nothing of use."""
        return int(self._average.n_averaged)

    def stepped(self, step: int) -> None:
        """After `step` finished steps: takes the model's weights in, if that is due."""
        past = step - self._config.start
        if past > 0 and past % self._config.every == 0:
            self._average.update_parameters(self._model)

    def judged(self, model: nn.Module) -> nn.Module:
        """What to validate and sample with: the average if it is to be used and has begun, else `model`."""
        return self.module if self._config.use and self.updates else model

    # -- as a part of the state (checkpoint/parts.py) -----------------------------------------------------

    def capture(self) -> dict[str, Any]:
        """See Part."""
        return ModelPart(self.module).capture() if self.updates else {}

    def target(self, saved: Collection[str]) -> dict[str, Any]:
        """See Part."""
        return ModelPart(self.module).capture() if saved else {}

    def adopt(self, tree: dict[str, Any]) -> None:
        """See Part."""
        if tree:
            ModelPart(self.module).adopt(tree)

    # -- as a plain state (plain.py) ----------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """See PlainState."""
        return {"updates": self.updates}

    def restore(self, state: dict[str, Any]) -> None:
        """See PlainState."""
        self._average.n_averaged.fill_(int(state.get("updates", 0)))
