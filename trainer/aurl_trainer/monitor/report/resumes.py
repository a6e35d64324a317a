"""Resumes: what each generation went on from, and whether it did again what had been done before.

From the records `resume` and `certificate`. Not here: how a certificate is made (engine/resume/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aurl_trainer.monitor.report.source import Record, Run

UNJUDGED = "not judged"
"""Of a generation that was lost before its first steps were compared."""


@dataclass(frozen=True)
class Resumed:
    """One resume. Digests are `sha256:` and 64 hexadecimal digits; None where none was taken."""

    generation: int
    at: float
    step: int
    checkpoint: str
    manifest: str
    weights: str | None
    weights_match: bool | None
    load_seconds: float
    disk_bytes: int = 0
    peer_bytes: int = 0
    store_bytes: int | None = None
    saved_seconds: float = 0.0
    verdict: str = UNJUDGED
    steps_redone: int | None = None
    compared: tuple[Record, ...] = ()
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain fields for scripts."""
        return {
            "generation": self.generation,
            "at": self.at,
            "step": self.step,
            "checkpoint": self.checkpoint,
            "manifest": self.manifest,
            "weights": self.weights,
            "weights_match": self.weights_match,
            "load_seconds": self.load_seconds,
            "disk_bytes": self.disk_bytes,
            "peer_bytes": self.peer_bytes,
            "store_bytes": self.store_bytes,
            "saved_seconds": self.saved_seconds,
            "verdict": self.verdict,
            "steps_redone": self.steps_redone,
            "compared": list(self.compared),
            "problems": list(self.problems),
        }


def resumes(run: Run) -> tuple[Resumed, ...]:
    """Every resume on record, oldest first."""
    certificates = {r["generation"]: r for r in run.of("certificate")}
    return tuple(_resumed(r, certificates.get(r["generation"])) for r in run.of("resume"))


def _resumed(record: Record, certificate: Record | None) -> Resumed:
    found = certificate or {}
    return Resumed(
        generation=record["generation"],
        at=record["at"],
        step=record["step"],
        checkpoint=str(record["checkpoint"]),
        manifest=str(record["manifest"]),
        weights=record["weights"],
        weights_match=record["weights_match"],
        load_seconds=record["seconds"],
        disk_bytes=record.get("disk_bytes", 0),
        peer_bytes=record.get("peer_bytes", 0),
        store_bytes=record.get("store_bytes"),
        saved_seconds=record.get("saved_seconds", 0.0),
        verdict=str(found.get("verdict", UNJUDGED)),
        steps_redone=found.get("steps_redone"),
        compared=tuple(c for c in found.get("compared") or () if isinstance(c, dict)),
        problems=tuple(str(p) for p in found.get("problems") or ()),
    )
