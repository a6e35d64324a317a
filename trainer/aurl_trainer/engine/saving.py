"""What a checkpoint of training holds, and how it gets in and out of model, optimizer and scaler.

Not here: the format (the rooms `checkpoint/` and `store/`) and when it is saved (saves.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from aurl_trainer.checkpoint.checkpointer import Checkpointer, Restored
from aurl_trainer.checkpoint.loading import MODEL
from aurl_trainer.checkpoint.parts import ModelPart, OptimizerPart, Part
from aurl_trainer.checkpoint.saving.saver import Saver
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.engine.precision import Precision
from aurl_trainer.engine.resume.weights import Weights, examine


@dataclass(frozen=True)
class Position:
    """How far a run is. `step` counts finished steps; the data's position follows from it.

    `productive_seconds` is the time of the steps that are in the result: steps done again after a loss count
    once.
    """

    step: int = 0
    productive_seconds: float = 0.0
    tokens: int = 0
    val_nll: float | None = None
    val_step: int | None = None
    best_nll: float | None = None

    def stepped(self, seconds: float, tokens: int) -> Position:
        """One step further."""
        return replace(
            self,
            step=self.step + 1,
            productive_seconds=self.productive_seconds + seconds,
            tokens=self.tokens + tokens,
        )

    def evaluated(self, nll: float) -> tuple[Position, bool]:
        """With a validation NLL at this step, and whether it is the best so far."""
        best = self.best_nll is None or nll < self.best_nll
        return (
            replace(
                self,
                val_nll=nll,
                val_step=self.step,
                best_nll=nll if best else self.best_nll,
            ),
            best,
        )

    @property
    def metrics(self) -> dict[str, float]:
        """What retention may choose by: the NLL, if it was measured at this very step."""
        return {"val_nll": self.val_nll} if self.val_nll is not None and self.val_step == self.step else {}


class RunState:
    """The training state of one rank, saved and restored as a whole."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        experiment: Experiment,
        checkpointer: Checkpointer | None,
    ) -> None:
        self.experiment = experiment
        self.generation = 0
        self.restored: Restored | None = None
        self._parts: dict[str, Part] = {
            MODEL: ModelPart(model),
            "optimizer": OptimizerPart(model, optimizer),
        }
        self._precision = precision
        self._checkpointer = checkpointer

    def open(self) -> Position:
        """Take a generation and restore the newest checkpoint that verifies; step 0 if there is none."""
        if self._checkpointer is None:
            return Position()
        opened = self._checkpointer.open(self._parts)
        self.generation = opened.generation
        if opened.restored is None:
            return Position()
        self.restored = opened.restored
        self._precision.restore(opened.restored.extra.get("scaler", {}))
        return Position(**opened.restored.extra["position"])

    @property
    def resumed_from(self) -> int | None:
        """The step of the checkpoint that was restored."""
        return None if self.restored is None else self.restored.step

    @property
    def name(self) -> str | None:
        """The name of the checkpoint that was restored."""
        return None if self.restored is None else self.restored.name

    def weights(self) -> Weights | None:
        """What the model holds after a restore, against the checkpoint; None if nothing was restored."""
        if self.restored is None:
            return None
        return examine(self._parts[MODEL].capture(), self.restored.manifest, MODEL)

    @property
    def saver(self) -> Saver | None:
        """What saves, after `open`; None without checkpoints."""
        return None if self._checkpointer is None else self._checkpointer.saver

    def save(self, position: Position) -> None:
        """Begin to save `position`. Raises CheckpointError on every rank alike."""
        if self.saver is None:
            raise RuntimeError("no checkpointer was given")
        self.saver.begin(position.step, self._parts, self._extra(position), position.metrics)

    def _extra(self, position: Position) -> dict[str, Any]:
        batch = self.experiment.engine.batch
        return {
            "position": asdict(position),
            "data": {"samples_done": position.step * batch.global_batch, "shards": batch.shards},
            "scaler": self._precision.state(),
            "seed": self.experiment.seed,
            "experiment": self.experiment.model_dump(mode="json"),
        }
