"""Rank 0's witness of a resume: it watches the first steps and writes the certificate.

The records of the generations before are read in a thread while the first steps are made: nothing waits for
them. Not here: the comparison (certificate.py), reading (past.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aurl_trainer.contract import Cause
from aurl_trainer.engine.reporting.incidents import Incidents
from aurl_trainer.engine.resume.certificate import COMPARED, Certificate, Done, Verdict, judge
from aurl_trainer.engine.resume.past import Past
from aurl_trainer.engine.resume.weights import Weights
from aurl_trainer.engine.runtime import Records
from aurl_trainer.monitor.records import TOLERANCE
from aurl_trainer.store.format.names import CheckpointName

PATIENCE = 2.0
"""Seconds that a rank which leaves waits for records of the past, at most."""


@dataclass(frozen=True)
class Resume:
    """What this generation went on from, and what else decides whether losses can be equal."""

    generation: int
    step: int
    checkpoint: str
    weights: Weights
    world: int
    surroundings: Mapping[str, str]
    exact: bool
    deterministic: bool


class Witness:
    """Takes the steps after `resume`, and certifies them. `past` is called once, in a thread."""

    def __init__(
        self,
        resume: Resume,
        past: Callable[[int], Past],
        records: Records,
        incidents: Incidents,
        say: Callable[[str], None],
    ) -> None:
        self._resume, self._records, self._incidents, self._say = resume, records, incidents, say
        self._again: list[Done] = []
        self._past: Past | None = None
        self._over = False
        self._reader = threading.Thread(target=self._read, args=(past,), name="past", daemon=True)
        self._reader.start()

    def _read(self, past: Callable[[int], Past]) -> None:
        self._past = past(self._resume.generation)

    def step(self, step: int, loss: float, samples: str) -> None:
        """Takes one finished step in."""
        if self._over:
            return
        if len(self._again) < COMPARED:
            finite = loss if loss == loss and abs(loss) != float("inf") else None
            resume = self._resume
            self._again.append(
                Done(step, finite, samples, resume.generation, resume.world, resume.surroundings)
            )
        past = self._past
        if past is not None and (len(self._again) >= COMPARED or step >= (past.furthest or 0)):
            self._certify(past)

    def close(self) -> None:
        """No further step comes: what there is is certified."""
        if self._over:
            return
        self._reader.join(PATIENCE)
        self._certify(self._past or Past(problem="the records of the steps before were not read in time"))

    def _certify(self, past: Past) -> None:
        self._over = True
        resume = self._resume
        self._incidents.tell_again(past.noted)
        writer = CheckpointName.parse(resume.checkpoint)
        found = judge(
            past.steps,
            self._again,
            writer=resume.generation if writer is None else writer.generation.number,
            exact=resume.exact,
            deterministic=resume.deterministic,
            weights=resume.weights.problem,
        )
        redone = max(0, (past.furthest or 0) - resume.step)
        problems = [*found.problems, *([past.problem] if past.problem else [])]
        self._records.write(
            "certificate",
            step=resume.step,
            verdict=found.verdict.value,
            steps_redone=redone,
            compared=[
                {
                    "step": c.again.step,
                    "loss": c.again.loss,
                    "before": c.before.loss,
                    "generation": c.before.generation,
                    "world": c.before.world,
                    "samples": c.same_samples if c.before.samples is not None else None,
                    "bitwise": c.bitwise,
                }
                for c in found.compared
            ],
            problems=problems,
        )
        self._say(f"resume of {resume.checkpoint}: {told(found, redone)}")
        if found.verdict is Verdict.DIFFERS:
            more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
            self._incidents.note(
                self._records,
                f"resume-mismatch/{resume.generation}",
                Cause.RESUME_MISMATCH,
                f"after the resume from {resume.checkpoint}: {found.problems[0]}{more}",
                step=resume.step,
                checkpoint=resume.checkpoint,
            )


def told(certificate: Certificate, redone: int) -> str:
    """The certificate in a line for the log."""
    steps = f"{redone} step{'' if redone == 1 else 's'} done again"
    count = len(certificate.compared)
    if certificate.verdict is Verdict.NOTHING:
        return f"{steps}, nothing to compare" if redone else "no step is done again"
    compared = f"{steps}, {count} compared"
    if certificate.verdict is Verdict.DIFFERS:
        return f"{compared}; it DIFFERS from what was done before: {certificate.problems[0]}"
    how = "equal in every bit" if certificate.verdict is Verdict.EQUAL else f"equal within {TOLERANCE:g}"
    return f"{compared}: the same samples, losses {how}"
