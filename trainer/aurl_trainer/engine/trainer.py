"""The training loop: AdvancedTrainer.

Here: the order of things (restore, step, agree, evaluate, save, sample, leave). Not here: one step's
arithmetic (step.py), what a checkpoint holds (saving.py), who listens (runtime.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import nn

from aurl_trainer.checkpoint.checkpointer import Checkpointer, Restored
from aurl_trainer.checkpoint.initial import Initialised
from aurl_trainer.config.experiment import Experiment
from aurl_trainer.contract import Cause, ExitCode, Phase, Progress
from aurl_trainer.data.batches import BatchPlan, Samples
from aurl_trainer.engine.averages import AveragedWeights
from aurl_trainer.engine.evaluation import Evaluation, evaluate
from aurl_trainer.engine.exact.gradients import ExactGradients
from aurl_trainer.engine.exact.platform import agreed
from aurl_trainer.engine.exact.refusals import refuse_inexact
from aurl_trainer.engine.incidents import Incidents
from aurl_trainer.engine.optimizer import build_optimizer
from aurl_trainer.engine.parallel import bare
from aurl_trainer.engine.plain import PlainState
from aurl_trainer.engine.precision import Precision
from aurl_trainer.engine.randomness import make_deterministic
from aurl_trainer.engine.resume import samples
from aurl_trainer.engine.resume.weights import Weights
from aurl_trainer.engine.resume.witness import Resume, Witness
from aurl_trainer.engine.runtime import Runtime
from aurl_trainer.engine.saves import SIGNALS, Saves
from aurl_trainer.engine.saving import Position, RunState
from aurl_trainer.engine.speed import Speed
from aurl_trainer.engine.step import StepResult, TrainingStep
from aurl_trainer.engine.survival.preemption import Decision, decide
from aurl_trainer.errors import LeaveError
from aurl_trainer.losses.framework import ComprehensiveLossFramework


@dataclass(frozen=True)
class Outcome:
    """A finished run: its last step and the NLL over all held-out samples (None: none were given)."""

    step: int
    evaluation: Evaluation | None


class AdvancedTrainer:
    """Trains `model` on `train`: `AdvancedTrainer(model, loss, train=...).configure(experiment).fit()`.

    With a `checkpointer` it goes on from the newest checkpoint that verifies; without, it starts at step 0.
    A run without a checkpoint of its own begins with what `initial` loads into the model, if it is given.
    `states` survive a loss with it, by name; `about` is what its checkpoints say of the model (saving.py).
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
    ) -> None:
        self._model = model
        self._loss = loss
        self._train = train
        self._validation = validation
        self._runtime = runtime or Runtime()
        self._checkpointer = checkpointer
        self._initial, self._states, self._about = initial, states, about
        self._warnings: list[str] = []
        self._incidents = Incidents()
        self._witness: Witness | None = None
        self._experiment: Experiment | None = None
        self._progress: Progress | None = None

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
        self._records = runtime.open_records(self._state.generation)
        busy = experiment.checkpoint.busy
        self._saves = Saves(self._state, runtime, self._records, busy, self._enter, self._note)
        self._started(position)
        # DDP copies rank 0's weights to all ranks, so it wraps what was restored.
        self._step = replace(self._step, model=runtime.world.wrap(self._model, average=not exact))
        self._model.train()
        position = self._make_up(position)
        speed = Speed()
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
            speed.add(result.tokens, seconds)
            signals, used = rest[:SIGNALS], rest[SIGNALS:]
            self._saves.heard(signals)
            self._record_step(position, result, loss, samples.shown(used), seconds, speed)
            decision = decide(notice.given, notices, regroups)
            last, best = position.step == steps, False
            if decision is not Decision.GO_ON and not last:
                self._saves.last(position, signals)
                self._leave(decision, position.step)
            if last or _due(experiment.monitor.evaluate_every, position.step):
                position, best = self._evaluate(position, experiment.monitor.evaluate_samples)
                self._update(position, Phase.EVALUATE)
            if last or best or _due(experiment.checkpoint.every, position.step):
                self._saves.save(position, must=last or best)
                self._update(position, Phase.SAVE)
            if not last and _due(experiment.samples.every, position.step):
                self._sample(position)
        return self._finish(position)

    def _started(self, position: Position) -> None:
        world, opened = self._runtime.world, self._state
        if self._experiment is None:
            raise RuntimeError("not configured")
        self._records.write(
            "start",
            generation=opened.generation,
            rank=world.rank,
            world=world.size,
            resumed_from=opened.resumed_from,
            checkpoint=opened.name,
            total_steps=self._experiment.engine.steps,
            loaded=None if opened.restored is None else asdict(opened.restored.loaded),
            initial=None if opened.begun is None else opened.begun.record(),
        )
        where = f"from step {position.step} ({opened.name})" if opened.name else "from the start"
        self._say(f"generation {opened.generation}: {world.size} rank(s), {where}")
        for note in opened.notes:
            self._say(note)
        for damage in opened.restored.damaged if opened.restored is not None else ():
            self._say(f"warning: {damage.message}")
            self._note(
                f"damaged/{damage.name}",
                Cause.CHECKPOINT_DAMAGED,
                damage.message,
                step=damage.step,
                checkpoint=damage.name,
            )
        if world.rank == 0 and opened.restored is not None:
            self._witness = self._resume(opened.restored)

    def _resume(self, restored: Restored) -> Witness:
        """Writes down what this generation goes on from, and has the first steps compared with the past."""
        world, state, engine = self._runtime.world, self._state, self._state.experiment.engine
        weights, near = state.weights() or Weights(None), restored.sources
        self._records.write(
            "resume",
            step=restored.step,
            checkpoint=restored.name,
            manifest=restored.digest,
            weights=weights.digest,
            weights_match=None if weights.digest is None else weights.problem is None,
            seconds=restored.seconds,
            disk_bytes=near.disk,
            peer_bytes=near.peers,
            store_bytes=near.store or None,
            saved_seconds=near.saved,
        )
        if near.disk or near.peers:
            self._say(
                f"checkpoint: {near.peers / 1e6:,.1f} MB came from peers, {near.disk / 1e6:,.1f} MB from own "
                f"disks, {near.store / 1e6:,.1f} MB from the store; saved about {near.saved:.1f} s"
            )
        resume = Resume(
            generation=state.generation,
            step=restored.step,
            checkpoint=restored.name,
            weights=weights,
            world=world.size,
            surroundings=self._runtime.surroundings,
            exact=self._step.exact is not None,
            deterministic=engine.deterministic,
        )
        return Witness(resume, self._runtime.past, self._records, self._incidents, self._runtime.say)

    def _record_step(
        self, at: Position, result: StepResult, loss: float, used: str, seconds: float, speed: Speed
    ) -> None:
        runtime, experiment = self._runtime, self._state.experiment
        steps = experiment.engine.steps
        if experiment.monitor.audit:
            self._records.write("audit", step=at.step, ids=result.ids, loss=loss)
        if runtime.world.rank == 0:
            self._records.write(
                "step",
                step=at.step,
                loss=loss,
                lr=result.learning_rate,
                grad_norm=result.gradient_norm,
                tokens=result.tokens,
                seconds=seconds,
                epoch=self._step.plan.epoch(at.step - 1),
                samples=used,
            )
            if self._witness is not None:
                self._witness.step(at.step, loss, used)
            if at.step % experiment.monitor.log_every == 0 or at.step == steps:
                self._say(
                    f"step {at.step}/{steps}  loss {loss:.4f}  lr {result.learning_rate:.2e}  "
                    f"{speed.tokens:,.0f} tokens/s  {speed.seconds * (steps - at.step):,.0f} s to go"
                )
        self._progress = replace(
            self._standing(at, Phase.STEP),
            loss=loss,
            learning_rate=result.learning_rate,
            tokens_per_second=speed.tokens,
            eta_seconds=speed.seconds * (steps - at.step),
        )
        runtime.progress.update(self._progress)

    def _standing(self, at: Position, phase: Phase) -> Progress:
        return Progress(
            rank=self._runtime.world.rank,
            world=self._runtime.world.size,
            generation=self._state.generation,
            phase=phase,
            step=at.step,
            total_steps=self._state.experiment.engine.steps,
            at=time.time(),
            val_loss=at.val_nll,
            productive_seconds=at.productive_seconds,
            resumed_from=self._state.resumed_from,
            last_durable_step=self._saves.durable,
            last_durable_name=self._saves.durable_name,
            warnings=self._warnings[-5:],
            noted=self._incidents.newest,
        )

    def _enter(self, at: Position, phase: Phase) -> None:
        """Tell peers and whoever asks for progress, before it begins: each phase has a limit of its own."""
        self._runtime.beats.phase(phase, at.step)
        self._update(at, phase)

    def _update(self, at: Position, phase: Phase) -> None:
        """Tell what has changed since the step."""
        if self._progress is not None:
            self._progress = replace(
                self._progress,
                phase=phase,
                at=time.time(),
                val_loss=at.val_nll,
                last_durable_step=self._saves.durable,
                last_durable_name=self._saves.durable_name,
                warnings=self._warnings[-5:],
                noted=self._incidents.newest,
            )
            self._runtime.progress.update(self._progress)

    def _evaluate(self, position: Position, count: int | None) -> tuple[Position, bool]:
        """The position with its validation NLL, and whether that is the best so far."""
        if self._validation is None or len(self._validation) == 0:
            return position, False
        return position.evaluated(self._validate(position, count).nll)

    def _make_up(self, position: Position) -> Position:
        """With the evaluation that the world before was to make after this step, when it had to leave."""
        monitor = self._state.experiment.monitor
        if position.step == 0 or position.val_step == position.step:
            return position
        if not _due(monitor.evaluate_every, position.step):
            return position
        position, best = self._evaluate(position, monitor.evaluate_samples)
        if best:
            self._saves.save(position, must=True)
        return position

    def _validate(self, position: Position, count: int | None) -> Evaluation:
        if self._validation is None:
            raise RuntimeError("no validation data was given")
        began, step = time.perf_counter(), position.step
        self._enter(position, Phase.EVALUATE)
        batch = self._state.experiment.engine.batch
        result = evaluate(
            self._state.judged(bare(self._model)),
            self._validation,
            count=min(count or len(self._validation), len(self._validation)),
            batch=batch.global_batch // batch.shards,
            world=self._runtime.world,
            precision=self._precision,
            alive=lambda: self._runtime.beats.phase(Phase.EVALUATE, step),
        )
        if self._runtime.world.rank == 0:
            seconds = time.perf_counter() - began
            self._records.write(
                "evaluation", step=step, val_loss=result.nll, tokens=result.tokens, seconds=seconds
            )
            self._say(f"step {step}: validation {result.nll:.4f} nats a token over {result.tokens:,} tokens")
        return result

    def _note(self, id: str, cause: Cause, message: str, **about: Any) -> None:
        """An incident that ends no node: written down, and told to whoever asks for progress."""
        self._warnings.append(message)
        if self._runtime.world.rank == 0:
            self._incidents.note(self._records, id, cause, message, **about)

    def _leave(self, decision: Decision, step: int) -> None:
        if self._witness is not None:
            self._witness.close()
        leaving = decision is Decision.SAVE_AND_LEAVE
        reason = "preemption notice" if leaving else "the world changes"
        self._records.write("end", step=step, reason=reason)
        self._say(f"step {step}: {reason}, last saved step {self._saves.durable}")
        raise LeaveError(ExitCode.PREEMPTED if leaving else ExitCode.REJOIN, reason)

    def _sample(self, position: Position) -> None:
        if self._runtime.sample is None or self._runtime.world.rank != 0:
            return
        self._enter(position, Phase.EVALUATE)
        step = position.step
        files = self._runtime.sample(self._state.judged(bare(self._model)), step)
        if files:
            self._records.write("samples", step=step, files=files)
            self._say(f"step {step}: wrote {len(files)} files of music")

    def _finish(self, position: Position) -> Outcome:
        """Validate on everything that is held out, and sample; also after a resume at the last step."""
        evaluation = None
        if self._witness is not None:
            self._witness.close()
        # A run that was resumed at its last step has told nothing yet.
        self._progress = self._progress or self._standing(position, Phase.LOAD)
        if self._validation is not None and len(self._validation):
            evaluation = self._validate(position, None)
        self._sample(position)
        # The last save has gone on beside all that; without it the run is not over.
        self._saves.finish(position)
        self._enter(position, Phase.END)
        self._runtime.world.barrier()
        return Outcome(position.step, evaluation)

    def _say(self, text: str) -> None:
        if self._runtime.world.rank == 0:
            self._runtime.say(text)


def _due(every: int, step: int) -> bool:
    """Whether something done every `every` steps (0: never) is due after `step` steps."""
    return every > 0 and step % every == 0
