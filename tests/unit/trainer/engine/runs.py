"""Small runs of the real loop in one process, with something that watches in the runtime's place."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.config.checkpoint import CheckpointConfig
from aurl_trainer.config.data import DataConfig, SourceConfig
from aurl_trainer.config.engine import BatchConfig, EngineConfig, OptimizerConfig
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.config.losses import LossConfig
from aurl_trainer.config.model import ModelConfig
from aurl_trainer.config.monitor import MonitorConfig, SamplesConfig
from aurl_trainer.contract import Phase, Progress
from aurl_trainer.engine.randomness import seed_all
from aurl_trainer.engine.runtime import Runtime
from aurl_trainer.engine.saves import Saves
from aurl_trainer.engine.state.position import Position
from aurl_trainer.engine.survival.preemption import Notice
from aurl_trainer.engine.trainer import AdvancedTrainer, Outcome
from aurl_trainer.losses.framework import ComprehensiveLossFramework
from aurl_trainer.model.music_transformer import MusicTransformerVAEGAN
from aurl_trainer.store.kept import KeptPacks
from tests.unit.trainer.engine.corpus import Windows

STEPS = 12


def make_experiment(**engine: Any) -> Experiment:
    fields: dict[str, Any] = {
        "steps": STEPS,
        "batch": BatchConfig(global_batch=8, shards=2),
        "optimizer": OptimizerConfig(learning_rate=1e-2, warmup_steps=3),
        "device": "cpu",
    }
    return Experiment(
        seed=11,
        data=DataConfig(source=SourceConfig(midi="unused"), sequence_length=16),
        model=ModelConfig(dim=16, layers=1, heads=2, dropout=0.2),
        engine=EngineConfig(**(fields | engine)),
        monitor=MonitorConfig(evaluate_every=4, log_every=4),
        samples=SamplesConfig(count=0),
        checkpoint=CheckpointConfig(every=3),
    )


class Watch:
    """Takes the runtime's place: keeps what the loop tells, and asks it to leave after a step."""

    def __init__(
        self, leave_after: int | None = None, regroup: bool = False, notice: Notice | None = None
    ) -> None:
        self.records: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.phases: list[Phase] = []
        self.progress: list[Progress] = []
        self.generation = 0
        self._leave_after, self._regroup = leave_after, regroup
        self.runtime = Runtime(
            beats=self,
            open_records=self.open,
            progress=self,
            notice=notice or Notice(),
            say=self.said.append,
        )

    def open(self, generation: int) -> Watch:
        self.generation = generation
        return self

    def write(self, kind: str, **fields: Any) -> None:
        self.records.append({"kind": kind, **fields})

    def update(self, progress: Progress) -> None:
        self.progress.append(progress)
        if progress.step == self._leave_after and not self._regroup:
            self.runtime.notice.given = True

    def phase(self, phase: Phase, step: int) -> None:
        self.phases.append(phase)
        if phase is Phase.STEP and step == self._leave_after and not self._regroup:
            assert self.runtime.notice.given

    @property
    def regroup_requested(self) -> bool:
        return self._regroup and bool(self.progress) and self.progress[-1].step == self._leave_after

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [r for r in self.records if r["kind"] == kind]


class Short(Notice):
    """No time to save after a notice."""

    @property
    def left(self) -> float:
        return -1.0 if self.given else math.inf


class Brief(Notice):
    """Time for a few looks after a notice."""

    looks = 0

    @property
    def left(self) -> float:
        self.looks += self.given
        return math.inf if not self.given else 60.0 if self.looks < 10 else 0.0


def wait_for_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the run wait for each save, so that it is known which have ended when it leaves."""
    begin = Saves.save

    def save(self: Saves, position: Position, *, must: bool) -> None:
        begin(self, position, must=must)
        self.wait(position)

    monkeypatch.setattr(Saves, "save", save)


def run(
    uri: str, watch: Watch, experiment: Experiment | None = None, kept: KeptPacks | None = None
) -> tuple[Outcome, torch.Tensor]:
    """Train from what lies at `uri` to the end; the outcome and all weights."""
    experiment = experiment or make_experiment()
    data = Windows()
    seed_all(experiment.seed, "weights")
    model = MusicTransformerVAEGAN(experiment.model, data.vocab, data.pad_id, data.sequence_length)
    checkpointer = Checkpointer(
        uri,
        run="test",
        fingerprint=experiment.identity(),
        settings=experiment.checkpoint,
        rank=0,
        world=1,
        kept=kept,
    )
    outcome = (
        AdvancedTrainer(
            model,
            ComprehensiveLossFramework(LossConfig()),
            train=data,
            validation=Windows(count=6, seed=9),
            runtime=watch.runtime,
            checkpointer=checkpointer,
        )
        .configure(experiment)
        .fit()
    )
    return outcome, torch.cat([p.detach().flatten() for p in model.parameters()])


def losses(watch: Watch) -> dict[int, float]:
    return {r["step"]: r["loss"] for r in watch.of("step")}
