"""What came of a save, and what saves have taken of late: plain values. Not here: saving (saver.py)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Saved:
    """A committed checkpoint. Seconds from the beginning to its commit, and bytes written by all ranks.

    `reused` bytes lie in packs of earlier checkpoints. `staging` is the host memory of this rank's copy.
    """

    step: int
    seconds: float
    bytes: int
    name: str
    reused: int = 0
    staging: int = 0
    stage_seconds: float = 0.0
    upload_seconds: float = 0.0
    commit_seconds: float = 0.0


@dataclass(frozen=True)
class SaveTimes:
    """Seconds that saves have taken of late, each of the slowest rank and save."""

    stage: float = 0.0
    upload: float = 0.0
    commit: float = 0.0

    @property
    def total(self) -> float:
        """From beginning to end."""
        return self.stage + self.upload + self.commit
