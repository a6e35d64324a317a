"""How far a run is, and what was measured there. Not here: what else a checkpoint holds (run_state.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace


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
    measured: Mapping[str, float] = field(default_factory=dict)
    """What music that was sampled at `measured_step` measures, by name. Only the rank that samples knows."""
    measured_step: int | None = None

    def stepped(self, seconds: float, tokens: int) -> Position:
        """One step further."""
        return replace(
            self,
            step=self.step + 1,
            productive_seconds=self.productive_seconds + seconds,
            tokens=self.tokens + tokens,
        )

    def evaluated(self, nll: float) -> tuple[Position, bool]:
        """With a validation NLL at this step, and whether that is the best so far; only a finite one is."""
        before = self.best_nll if self.best_nll is not None and math.isfinite(self.best_nll) else None
        best = math.isfinite(nll) and (before is None or nll < before)
        return (
            replace(
                self,
                val_nll=nll,
                val_step=self.step,
                best_nll=nll if best else before,
            ),
            best,
        )

    def sampled(self, measured: Mapping[str, float]) -> Position:
        """With what music measures that these weights have written."""
        return replace(self, measured=dict(measured), measured_step=self.step)

    @property
    def metrics(self) -> dict[str, float]:
        """What checkpoints may be chosen by: all that was measured with the weights of this very step."""
        music = dict(self.measured) if self.measured_step == self.step else {}
        if self.val_nll is None or self.val_step != self.step:
            return music
        return {**music, "val_nll": self.val_nll}
