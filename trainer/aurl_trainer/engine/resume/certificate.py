"""The resume certificate: whether a run that went on from a checkpoint does again what it had done before.

The first steps after a resume have mostly been done once already, by a world that was lost later. Their
samples must be the same as sets. Their losses must be the same in every bit where the sums have had the same
order since the two ways parted: at the same world size, on ranks that compute alike (versions, threads,
devices, instruction sets, models of CPU); with `reproducibility: exact` at any size, whatever the models of
CPU. Elsewhere they may differ by `TOLERANCE`: the first steps after a resume with wrong weights, optimizer
state, learning rate or dropout are further off.

Pure: records in, verdict out. Not here: reading records (past.py), when it is judged (witness.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from aurl_trainer.engine.exact.platform import PROCESSORS
from aurl_trainer.monitor.records import TOLERANCE

COMPARED = 8
"""Steps after a resume that are compared, at most."""


class Verdict(StrEnum):
    """What the comparison came to."""

    EQUAL = "equal"
    """In every bit."""
    CLOSE = "close"
    """The same samples, and losses within the tolerance, where no more can be asked for."""
    DIFFERS = "differs"
    NOTHING = "nothing to compare"
    """No step was done again, or nothing of it is on record."""


@dataclass(frozen=True)
class Done:
    """One step as it is on record: the mean loss, nats per token (None: not finite), and its samples."""

    step: int
    loss: float | None
    samples: str | None = None
    """The fingerprint (samples.py); None in records of older versions."""
    generation: int = 0
    world: int = 1
    surroundings: Mapping[str, str] = field(default_factory=dict)
    """What else decides the bits: versions, threads, what each rank computes with. Empty: not known."""


@dataclass(frozen=True)
class Compared:
    """One step, done twice. `bitwise`: equality in every bit was asked for."""

    before: Done
    again: Done
    bitwise: bool

    @property
    def same_samples(self) -> bool:
        """Whether both used the same samples, as far as both are on record."""
        known = None not in (self.before.samples, self.again.samples)
        return not known or self.before.samples == self.again.samples

    @property
    def same_loss(self) -> bool:
        """Whether the losses agree as they should."""
        one, other = self.before.loss, self.again.loss
        if one is None or other is None or self.bitwise:
            return one == other
        return abs(one - other) <= TOLERANCE

    @property
    def problem(self) -> str | None:
        """What is wrong, in a line."""
        step, where = self.again.step, f"generation {self.before.generation}"
        if not self.same_samples:
            return f"step {step} used other samples than in {where}"
        if not self.same_loss:
            asked = "in every bit" if self.bitwise else f"within {TOLERANCE:g}"
            losses = f"loss {self.again.loss!r} where {where} had {self.before.loss!r}"
            return f"step {step}: {losses}, not equal {asked}"
        return None


@dataclass(frozen=True)
class Certificate:
    """The verdict and what it rests on."""

    verdict: Verdict
    compared: tuple[Compared, ...]
    problems: tuple[str, ...]


def judge(
    past: Mapping[int, Done],
    again: Sequence[Done],
    *,
    writer: int,
    exact: bool,
    deterministic: bool,
    weights: str | None,
) -> Certificate:
    """The certificate over the steps of `again` that are in `past`, which holds earlier ones, too.

    `writer`: the generation whose checkpoint the run went on from. `exact`: losses do not depend on the world
    size. `deterministic`: kernels are. `weights`: what is wrong with those loaded, None if nothing is.
    """
    compared = tuple(
        Compared(
            past[a.step],
            a,
            deterministic and all(_same_order(d, a, exact) for d in _apart(past[a.step], past, writer)),
        )
        for a in again
        if a.step in past
    )
    problems = tuple(p for p in (weights, *(c.problem for c in compared)) if p is not None)
    if problems:
        verdict = Verdict.DIFFERS
    elif not compared:
        verdict = Verdict.NOTHING
    else:
        equal = all(c.before.loss == c.again.loss for c in compared)
        verdict = Verdict.EQUAL if equal else Verdict.CLOSE
    return Certificate(verdict, compared, problems)


def _apart(before: Done, past: Mapping[int, Done], writer: int) -> Iterator[Done]:
    """`before`, and a step of every generation that only one of the two ways to this step went through."""
    yield before
    first, last = sorted((before.generation, writer))
    yield from (done for done in past.values() if first < done.generation <= last)


def _same_order(before: Done, again: Done, exact: bool) -> bool:
    """Whether every sum was made of the same numbers in the same order by the same code."""
    if not exact:
        return before.world == again.world and _alike(before.surroundings, again.surroundings)
    one, other = ({k: v for k, v in d.surroundings.items() if k != PROCESSORS} for d in (before, again))
    return _alike(one, other)


def _alike(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether both are known, and the same: an older record that tells less is not."""
    return bool(one) and one == other
