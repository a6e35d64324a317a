"""What a checkpoint of training holds, and how it gets in and out of all that has a state.

Tensors: the model, its averaged weights, the optimizer. Plain: the position (position.py; the data's follows
from it), the scaler and every other named state, the experiment, and what the model must be rebuilt like. The
learning rate is a function of the step, so there is no scheduler. Not here: the format (the rooms
`checkpoint/` and `store/`) and when it is saved (engine/saves.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from aurl_trainer.checkpoint.agreement import Ranks
from aurl_trainer.checkpoint.checkpointer import Checkpointer, Restored
from aurl_trainer.checkpoint.initial import Initialised
from aurl_trainer.checkpoint.parts import ModelPart, OptimizerPart, Part
from aurl_trainer.checkpoint.saving.saver import Saver
from aurl_trainer.checkpoint.weights import AVERAGE, MODEL
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.data.content import Content
from aurl_trainer.engine.exact.platform import Platform, compare
from aurl_trainer.engine.parallel import World
from aurl_trainer.engine.precision import Precision
from aurl_trainer.engine.resume import music
from aurl_trainer.engine.resume.weights import Weights, examine
from aurl_trainer.engine.state.averages import AveragedWeights
from aurl_trainer.engine.state.plain import PlainState, gather, scatter
from aurl_trainer.engine.state.position import Position


class RunState:
    """The training state of one rank, saved and restored as a whole.

    `states` are the plain states of what plugs into the loop, by name. `about` is plain and kept as it is:
    what the model must be rebuilt like. `prepared` is the music that is trained on. `initial` loads another
    run's weights into the model; it is called, on all ranks, if this run has no checkpoint of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        experiment: Experiment,
        checkpointer: Checkpointer | None,
        *,
        world: World,
        average: AveragedWeights | None = None,
        states: Mapping[str, PlainState] | None = None,
        about: Mapping[str, Any] | None = None,
        prepared: Content | None = None,
        initial: Callable[[], Initialised] | None = None,
    ) -> None:
        self.experiment = experiment
        self.generation = 0
        self.restored: Restored | None = None
        self._parts: dict[str, Part] = {
            MODEL: ModelPart(model),
            "optimizer": OptimizerPart(model, optimizer),
        }
        self._states: dict[str, PlainState] = {"scaler": precision, **(states or {})}
        self._average = average
        if average is not None:
            self._parts[AVERAGE] = average
            self._states[AVERAGE] = average
        self.notes: list[str] = []
        """What people should know of how this world has begun."""
        self.begun: Initialised | None = None
        """Whose weights it has begun with; None: its own checkpoint's, or new ones."""
        self._origin: Any = None
        self._about = dict(about or {})
        self._prepared = prepared
        self._initial = initial
        self._world = world
        self._checkpointer = checkpointer
        self._platform: Platform | None = None

    def open(self, platform: Platform | None = None) -> Position:
        """Take a generation and restore the newest checkpoint that verifies; step 0 if there is none.

        `platform` is kept with an exact run's checkpoints. Raises RefusedError if theirs computes other bits,
        and if the checkpoint was trained on other music.
        """
        self._platform = platform
        restored = None
        if self._checkpointer is not None:
            opened = self._checkpointer.open(self._parts)
            self.generation, restored = opened.generation, opened.restored
        if restored is None:
            self._begin()
            return Position()
        self.restored = restored
        if self._prepared is not None:
            music.check(restored.extra, self._prepared, self._about.get("tokenizer"), restored.name)
        self._origin = restored.extra.get("init_from")
        # Before states had names there was only the scaler's.
        saved = restored.extra.get("states", {"scaler": restored.extra.get("scaler", {})})
        self.notes = [str(restored.loaded), *scatter(self._states, saved)]
        before = restored.extra.get("platform")
        if platform is not None and before is not None:
            self.notes += compare(before, platform, f"checkpoint {self.name}", "this world")
        return Position(**restored.extra["position"])

    def _begin(self) -> None:
        if self._initial is None:
            return
        ranks = Ranks(self._world.rank, self._world.size, self._world.group)
        self.begun = ranks.together(self._initial)[self._world.rank]
        self._origin = self.begun.record()
        self.notes = self.begun.lines()

    def judged(self, model: nn.Module) -> nn.Module:
        """What to validate and sample with: `model`, or its averaged weights where they are to be used."""
        return model if self._average is None else self._average.judged(model)

    def stepped(self, step: int) -> None:
        """After `step` finished steps: what follows the weights follows them."""
        if self._average is not None:
            self._average.stepped(step)

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
            "states": gather(self._states),
            "seed": self.experiment.seed,
            "experiment": self.experiment.model_dump(mode="json"),
            "model": self._about,
            "init_from": self._origin,
            **({"prepared": self._prepared} if self._prepared is not None else {}),
            **({"platform": self._platform} if self._platform is not None else {}),
        }
