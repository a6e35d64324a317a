"""Run directories written as a run would write them, at invented times."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aurl_trainer.contract import LedgerEntry, RunFile


@dataclass
class RunDirectory:
    """Writes a run directory; `now` is its clock, seconds since the epoch."""

    folder: Path
    now: float = 1_700_000_000.0
    generation: int = 0
    ids: int = 0

    def record(self, kind: str, rank: int = 0, /, **fields: Any) -> None:
        name = f"gen-{self.generation:06d}-rank-{rank:04d}.jsonl"
        self._append(
            self.folder / RunFile.RECORDS / name, json.dumps({"kind": kind, "at": self.now, **fields})
        )

    def start(self, resumed_from: int | None = None, world: int = 2, total_steps: int = 10) -> None:
        self.generation += 1
        for rank in range(world):
            self.record(
                "start",
                rank,
                generation=self.generation,
                rank=rank,
                world=world,
                node=f"worker-{rank}",
                total_steps=total_steps,
                resumed_from=resumed_from,
                checkpoint=None if resumed_from is None else f"step-{resumed_from}",
            )

    def steps(self, first: int, last: int, seconds: float = 1.0, **fields: Any) -> None:
        for step in range(first, last + 1):
            self.now += seconds
            loss = fields.get("loss", 5.0 / step)
            self.record(
                "step",
                **{"step": step, "lr": 1e-3, "tokens": 100, "seconds": seconds, **fields, "loss": loss},
            )

    def ledger(self, kind: str, id: str = "", **fields: Any) -> None:
        self.ids += 1
        entry = LedgerEntry(kind=kind, at=fields.pop("at", self.now), id=id or str(self.ids), **fields)
        self._append(self.folder / RunFile.LEDGER, entry.to_json())

    def node(self, process: str, cause: str | None = None) -> None:
        self.ledger("node", nodes=[process], uids=[f"uid-{process}"], cause=cause)

    def _append(self, path: Path, line: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"{line}\n")


def rehearsed(folder: Path) -> RunDirectory:
    """Ten steps of one second each: node lost after step 6, resumed from step 4, then a preemption at 8."""
    run = RunDirectory(folder)
    run.ledger("phase", phase="Running")
    run.node("worker-0-0")
    run.node("worker-1-0")
    run.now += 2
    run.start()
    run.steps(1, 6)
    run.node("worker-1-0", "node-lost")
    run.ledger("incident", "lost", cause="node-lost", nodes=["worker-1-0"], message="gone", step=6)
    run.node("worker-1-1")
    run.now += 4
    run.start(resumed_from=4)
    run.steps(5, 5)
    run.ledger("recovered", "lost", recovery_seconds=5.0, lost_seconds=6.0, steps_redone=2)
    run.steps(6, 8)
    run.ledger("incident", "notice", cause="preempted", nodes=["worker-0-0"], step=8)
    run.record("end", step=8, reason="preemption notice")
    run.node("worker-0-0", "preempted")
    run.now += 3
    run.start(resumed_from=8, world=1)
    run.steps(9, 9)
    run.ledger("recovered", "notice", recovery_seconds=4.0, lost_seconds=3.0, steps_redone=0)
    run.steps(10, 10)
    run.record("evaluation", step=10, val_loss=0.75, tokens=500, seconds=0.0)
    run.record("baselines", unigram=3.0, markov2=1.5, val_loss=0.7)
    run.record("end", step=10, reason="finished")
    run.node("worker-1-1", "succeeded")
    run.ledger("phase", phase="Succeeded")
    return run
