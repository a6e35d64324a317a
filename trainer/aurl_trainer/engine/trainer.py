"""The training loop: AdvancedTrainer.

Here: the order of things (restore, step, agree, evaluate, save, sample, leave). Not here: one step's
arithmetic (step.py), what a checkpoint holds (state/), what is told (reporting/), who listens (runtime.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self

import torch
from torch import nn

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.checkpoint.initial import Initialised
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.contract import ExitCode, Phase
from aurl_trainer.data.batches import BatchPlan, Samples
from aurl_trainer.data.content import Content
from aurl_trainer.engine.evaluation import Evaluation, evaluate
from aurl_trainer.engine.exact.gradients import ExactGradients
from aurl_trainer.engine.exact.platform import agreed
from aurl_trainer.engine.exact.refusals import refuse_inexact
from aurl_trainer.engine.optimizer import build_optimizer
from aurl_trainer.engine.parallel import bare
from aurl_trainer.engine.precision import Precision
from aurl_trainer.engine.randomness import make_deterministic
from aurl_trainer.engine.reporting.reporter import Reporter
from aurl_trainer.engine.resume import samples
from aurl_trainer.engine.runtime import Music, Runtime
from aurl_trainer.engine.saves import SIGNALS, Saves
from aurl_trainer.engine.state.averages import AveragedWeights
from aurl_trainer.engine.state.plain import PlainState
from aurl_trainer.engine.state.position import Position
from aurl_trainer.engine.state.run_state import RunState
from aurl_trainer.engine.step import TrainingStep
from aurl_trainer.engine.survival.preemption import Decision, decide
from aurl_trainer.errors import BrokenOffError, LeaveError
from aurl_trainer.losses.framework import ComprehensiveLossFramework


@dataclass(frozen=True)
class Outcome:
    """A finished run: its last step and the NLL over all held-out samples (None: none were given).

    `durable` is the step of its newest checkpoint, None without a place for any.
    """

    step: int
    evaluation: Evaluation | None
    durable: int | None = None
    durable_name: str | None = None


class AdvancedTrainer:
    """Trains `model` on `train`: `AdvancedTrainer(model, loss, train=...).configure(experiment).fit()`.

    With a `checkpointer` it goes on from the newest checkpoint that verifies; without, it starts at step 0.
    A run without a checkpoint of its own begins with what `initial` loads into the model, if it is given.
    `states` survive a loss with it, by name; `about` is what its checkpoints say of the model (state/),
    `prepared` the music that it is trained on: it goes on with no other.
    `fit` raises LeaveError when this rank has to leave before the last step (a notice, a changed world).
    """

    def __init__(
        self,
        model: nn.Module,
        loss: ComprehensiveLossFramework,
        *,
        train: Samples,
        validation: Samples | None = None,
        runtime: Runtime | None = None,
        checkpointer: Checkpointer | None = None,
        initial: Callable[[], Initialised] | None = None,
        states: Mapping[str, PlainState] | None = None,
        about: Mapping[str, Any] | None = None,
        prepared: Content | None = None,
    ) -> None:
        self._model = model
        self._loss = loss
        self._train = train
        self._validation = validation
        self._runtime = runtime or Runtime()
        self._checkpointer = checkpointer
        self._initial, self._states, self._about = initial, states, about
        self._prepared = prepared
        self._experiment: Experiment | None = None

    def configure(self, experiment: Experiment) -> Self:
        """Take batches, optimizer, precision and intervals from `experiment`. Raises ConfigError."""
        engine, world = experiment.engine, self._runtime.world
        make_deterministic(engine.deterministic)
        self._experiment = experiment
        self._precision = Precision(engine.precision, world.device)
        self._model.to(world.device)
        optimizer = build_optimizer(self._model, engine.optimizer)
        exact = None
        if engine.reproducibility == "exact":
            refuse_inexact(self._model)
            torch.set_num_threads(engine.threads or 1)
            exact = ExactGradients(self._model, engine.batch.shards, world)
        self._state = RunState(
            self._model,
            optimizer,
            self._precision,
            experiment,
            self._checkpointer,
            world=world,
            # Before the model is wrapped or sharded: it is copied.
            average=AveragedWeights.of(self._model, engine.average),
            states=self._states,
            about=self._about,
            prepared=self._prepared,
            initial=self._initial,
        )
        self._step = TrainingStep(
            model=self._model,
            loss=self._loss,
            optimizer=optimizer,
            precision=self._precision,
            dataset=self._train,
            plan=BatchPlan(len(self._train), engine.batch.global_batch, engine.batch.shards, experiment.seed),
            world=world,
            schedule=engine.optimizer,
            steps=engine.steps,
            seed=experiment.seed,
            exact=exact,
        )
        return self

    def fit(self) -> Outcome:
        """Train to the last step. Raises LeaveError, DivergedError, FencedError, CheckpointError."""
        if self._experiment is None:
            raise RuntimeError("call configure(experiment) before fit()")
        experiment, runtime, steps = self._experiment, self._runtime, self._experiment.engine.steps
        runtime.beats.phase(Phase.LOAD, 0)
        exact = self._step.exact is not None
        position = self._state.open(agreed(runtime.world) if exact else None)
        records = runtime.open_records(self._state.generation)
        self._tell = Reporter(
            runtime, self._state, records, lambda: (self._saves.durable, self._saves.durable_name)
        )
        busy = experiment.checkpoint.busy
        self._saves = Saves(self._state, runtime, records, busy, self._tell.enter, self._tell.note)
        self._tell.began(position, exact=exact)
        # DDP copies rank 0's weights to all ranks, so it wraps what was restored.
        self._step = replace(self._step, model=runtime.world.wrap(self._model, average=not exact))
        self._model.train()
        if self._saves.lost:  # only disks nearby have it whole, which go with their nodes
            self._saves.save(position, must=True)
        position = self._make_up(position)
        music: Music | None = None
        while position.step < steps:
            began = time.perf_counter()
            runtime.beats.phase(Phase.STEP, position.step)
            result = self._step.run(position.step, runtime.beats.phase)
            self._state.stepped(position.step + 1)
            # One reduction for the loss and for what the ranks must agree on.
            notice = runtime.notice
            loss, notices, regroups, *rest = runtime.world.sum(
                [
                    result.losses,
                    [float(notice.given)],
                    [float(runtime.beats.regroup_requested)],
                    *([value] for value in (*self._saves.signals(), *samples.sums(result.ids))),
                ]
            )
            seconds = time.perf_counter() - began
            position = position.stepped(seconds, result.tokens)
            signals, used = rest[:SIGNALS], rest[SIGNALS:]
            self._saves.heard(signals)
            epoch = self._step.plan.epoch(position.step - 1)
            self._tell.step(position, result, loss, samples.shown(used), seconds, epoch)
            decision = decide(notice.given, notices, regroups)
            last, best = position.step == steps, False
            if decision is not Decision.GO_ON and not last:
                self._saves.last(position, signals)
                self._leave(decision, position.step)
            if last or _due(experiment.monitor.evaluate_every, position.step):
                position, best = self._evaluate(position, experiment.monitor.evaluate_samples)
                self._tell.update(position, Phase.EVALUATE)
            # Before the save, which keeps what the music measures; its files are written beside the save.
            music = None
            if last or _due(experiment.samples.every, position.step):
                position, music = self._sample(position)
            if last or best or _due(experiment.checkpoint.every, position.step):
                self._saves.save(position, must=last or best)
                self._tell.update(position, Phase.SAVE)
            if not last:
                self._write(position, music)
        return self._finish(position, music)

    def _evaluate(self, position: Position, count: int | None) -> tuple[Position, bool]:
        """The position with its validation NLL, and whether that is the best so far."""
        if self._validation is None or len(self._validation) == 0:
            return position, False
        return position.evaluated(self._validate(position, count).nll)

    def _make_up(self, position: Position) -> Position:
        """With what the world before was to measure after this step, when it had to leave.

        Saved again where the checkpoint of this step would else lack what it is chosen by.
        """
        experiment, step, best, music = self._state.experiment, position.step, False, None
        if step == 0:
            return position
        unheard = _due(experiment.samples.every, step) and position.measured_step != step
        if position.val_step != step and _due(experiment.monitor.evaluate_every, step):
            position, best = self._evaluate(position, experiment.monitor.evaluate_samples)
        if unheard:
            position, music = self._sample(position)
        chosen_by_music = unheard and experiment.samples.count > 0 and self._runtime.sample is not None
        if best or (chosen_by_music and _due(experiment.checkpoint.every, step)):
            self._saves.save(position, must=True)
        self._write(position, music)
        return position

    def _validate(self, position: Position, count: int | None) -> Evaluation:
        if self._validation is None:
            raise RuntimeError("no validation data was given")
        began, step = time.perf_counter(), position.step
        self._tell.enter(position, Phase.EVALUATE)
        notice, last = self._runtime.notice, step == self._state.experiment.engine.steps

        def stop() -> bool:
            # The evaluation of the last step ends the run, so it may take all that saving that step does not.
            return notice.given and (not last or notice.left < 2 * self._saves.needs(step))

        batch = self._state.experiment.engine.batch
        try:
            result = evaluate(
                self._state.judged(bare(self._model)),
                self._validation,
                count=min(count or len(self._validation), len(self._validation)),
                batch=batch.global_batch // batch.shards,
                world=self._runtime.world,
                precision=self._precision,
                alive=lambda: self._runtime.beats.phase(Phase.EVALUATE, step),
                stop=stop,
            )
        except BrokenOffError:
            self._break_off(position)
        self._tell.evaluated(step, result, time.perf_counter() - began)
        return result

    def _break_off(self, position: Position) -> NoReturn:
        """In place of the rest of an evaluation, which the next world makes up for: save, and leave."""
        notice = self._runtime.notice
        sums = [[float(notice.given)], *([signal] for signal in self._saves.signals())]
        notices, *signals = self._runtime.world.sum(sums)
        self._saves.heard(signals)
        self._saves.last(position, signals)
        self._leave(decide(notice.given, notices, 0.0), position.step)

    def _leave(self, decision: Decision, step: int) -> NoReturn:
        leaving = decision is Decision.SAVE_AND_LEAVE
        reason = "preemption notice" if leaving else "the world changes"
        self._tell.left(step, reason)
        code = ExitCode.PREEMPTED if leaving else ExitCode.REJOIN
        raise LeaveError(code, reason, (self._saves.durable, self._saves.durable_name))

    def _sample(self, position: Position) -> tuple[Position, Music | None]:
        """Music by the weights of this step, on rank 0, and the position with what it measures."""
        if self._runtime.sample is None or self._runtime.world.rank != 0:
            return position, None
        self._tell.enter(position, Phase.EVALUATE)
        music = self._runtime.sample(self._state.judged(bare(self._model)), position.step)
        return position.sampled(music.metrics), music

    def _write(self, position: Position, music: Music | None) -> None:
        if music is None:
            return
        self._tell.enter(position, Phase.EVALUATE)
        files = music.write()
        if files:
            self._tell.sampled(position.step, files, music.metrics)

    def _finish(self, position: Position, music: Music | None) -> Outcome:
        """Validate on everything that is held out, and write music; also after a resume at the last step."""
        evaluation = None
        self._tell.finishing(position)
        if self._validation is not None and len(self._validation):
            evaluation = self._validate(position, None)
        self._write(position, music or self._sample(position)[1])
        # The last save has gone on beside all that; without it the run is not over.
        decision = self._saves.finish(position)
        if decision is not Decision.GO_ON:
            self._leave(decision, position.step)
        self._tell.enter(position, Phase.END)
        self._runtime.world.barrier()
        return Outcome(position.step, evaluation, self._saves.durable, self._saves.durable_name)


def _due(every: int, step: int) -> bool:
    """Whether something done every `every` steps (0: never) is due after `step` steps."""
    return every > 0 and step % every == 0
