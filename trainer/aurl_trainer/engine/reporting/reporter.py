"""What one rank's loop tells: records, lines for the log, progress, incidents.

All ranks write records and progress, rank 0 alone speaks. Not here: what a world begins with (beginning.py),
what is told of saves (engine/saves.py), who listens (engine/runtime.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from aurl_trainer.contract import Cause, Phase, Progress
from aurl_trainer.engine.evaluation import Evaluation
from aurl_trainer.engine.reporting.beginning import tell_beginning
from aurl_trainer.engine.reporting.incidents import Incidents
from aurl_trainer.engine.reporting.speed import Speed
from aurl_trainer.engine.resume.witness import Witness
from aurl_trainer.engine.runtime import Records, Runtime
from aurl_trainer.engine.state.position import Position
from aurl_trainer.engine.state.run_state import RunState
from aurl_trainer.engine.step import StepResult


class Reporter:
    """Tells of one run on one rank. `durable` gives step and name of the newest durable checkpoint."""

    def __init__(
        self,
        runtime: Runtime,
        state: RunState,
        records: Records,
        durable: Callable[[], tuple[int | None, str | None]],
    ) -> None:
        self._runtime = runtime
        self._state = state
        self._records = records
        self._durable = durable
        self._steps = state.experiment.engine.steps
        self._speed = Speed()
        self._warnings: list[str] = []
        self._incidents = Incidents()
        self._witness: Witness | None = None
        self._progress: Progress | None = None

    def began(self, at: Position, *, exact: bool) -> None:
        """With what this world begins; after a resume its first steps are compared with the past."""
        self._witness = tell_beginning(
            self._runtime, self._state, self._records, self._incidents, self.note, at=at, exact=exact
        )

    def step(
        self, at: Position, result: StepResult, loss: float, used: str, seconds: float, epoch: int
    ) -> None:
        """A finished step. `loss` is the global batch's, nats a token; `used` names its samples."""
        monitor = self._state.experiment.monitor
        self._speed.add(result.tokens, seconds)
        left = self._speed.seconds * (self._steps - at.step)
        if monitor.audit:
            self._records.write("audit", step=at.step, ids=result.ids, loss=loss)
        if self._runtime.world.rank == 0:
            self._records.write(
                "step",
                step=at.step,
                loss=loss,
                lr=result.learning_rate,
                grad_norm=result.gradient_norm,
                tokens=result.tokens,
                seconds=seconds,
                epoch=epoch,
                samples=used,
            )
            if self._witness is not None:
                self._witness.step(at.step, loss, used)
            if at.step % monitor.log_every == 0 or at.step == self._steps:
                self.say(
                    f"step {at.step}/{self._steps}  loss {loss:.4f}  lr {result.learning_rate:.2e}  "
                    f"{self._speed.tokens:,.0f} tokens/s  {left:,.0f} s to go"
                )
        self._progress = replace(
            self._standing(at, Phase.STEP),
            loss=loss,
            learning_rate=result.learning_rate,
            tokens_per_second=self._speed.tokens,
            eta_seconds=left,
        )
        self._runtime.progress.update(self._progress)

    def enter(self, at: Position, phase: Phase) -> None:
        """Tell peers and whoever asks for progress, before it begins: each phase has a limit of its own."""
        self._runtime.beats.phase(phase, at.step)
        self.update(at, phase)

    def update(self, at: Position, phase: Phase) -> None:
        """Tell what has changed since the step."""
        if self._progress is not None:
            step, name = self._durable()
            self._progress = replace(
                self._progress,
                phase=phase,
                at=time.time(),
                val_loss=at.val_nll,
                music=dict(at.measured),
                last_durable_step=step,
                last_durable_name=name,
                warnings=self._warnings[-5:],
                noted=self._incidents.newest,
            )
            self._runtime.progress.update(self._progress)

    def evaluated(self, step: int, result: Evaluation, seconds: float) -> None:
        """A validation, and how long it took."""
        if self._runtime.world.rank == 0:
            self._records.write(
                "evaluation", step=step, val_loss=result.nll, tokens=result.tokens, seconds=seconds
            )
            self.say(f"step {step}: validation {result.nll:.4f} nats a token over {result.tokens:,} tokens")

    def sampled(self, step: int, files: Sequence[str], metrics: Mapping[str, float]) -> None:
        """Music that was written, and what it measures."""
        self._records.write("samples", step=step, files=list(files), metrics=dict(metrics))
        told = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        self.say(f"step {step}: wrote {len(files)} files of music{f': {told}' if told else ''}")

    def note(
        self,
        id: str,
        cause: Cause,
        message: str,
        *,
        step: int | None = None,
        checkpoint: str | None = None,
    ) -> None:
        """See Note: written down, and told to whoever asks for progress."""
        self._warnings.append(message)
        if self._runtime.world.rank == 0:
            self._incidents.note(self._records, id, cause, message, step=step, checkpoint=checkpoint)

    def left(self, step: int, reason: str) -> None:
        """This rank leaves before the last step."""
        self.no_more_steps()
        self._records.write("end", step=step, reason=reason)
        self.say(f"step {step}: {reason}, last saved step {self._durable()[0]}")

    def finishing(self, at: Position) -> None:
        """The last step is done. A run that was resumed there has told nothing yet."""
        self.no_more_steps()
        self._progress = self._progress or self._standing(at, Phase.LOAD)

    def no_more_steps(self) -> None:
        """What is known of a resume is certified now."""
        if self._witness is not None:
            self._witness.close()

    def say(self, text: str) -> None:
        """A line for the log."""
        if self._runtime.world.rank == 0:
            self._runtime.say(text)

    def _standing(self, at: Position, phase: Phase) -> Progress:
        step, name = self._durable()
        return Progress(
            rank=self._runtime.world.rank,
            world=self._runtime.world.size,
            generation=self._state.generation,
            phase=phase,
            step=at.step,
            total_steps=self._steps,
            at=time.time(),
            val_loss=at.val_nll,
            music=dict(at.measured),
            productive_seconds=at.productive_seconds,
            resumed_from=self._state.resumed_from,
            last_durable_step=step,
            last_durable_name=name,
            warnings=self._warnings[-5:],
            noted=self._incidents.newest,
        )
