"""How fast a run is, for log lines and the time that is left. Not here: the clock (engine/trainer.py)."""

from __future__ import annotations


class Speed:
    """Smoothed seconds a step and tokens a second over about the last 20 steps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.tokens = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Take one step in."""
        weight = 0.05 if self.seconds else 1.0
        self.seconds += weight * (seconds - self.seconds)
        self.tokens += weight * (tokens / max(seconds, 1e-9) - self.tokens)
