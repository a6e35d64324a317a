"""Runs led through their kills and judged, each beside an undisturbed one of the same seed.

Not here: one run's kills (campaign.py), the comparison (judge.py), the command (__main__.py).
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aurl_operator.backends.local.rundir import read_ledger
from aurl_trainer.errors import AurlTrainerError
from bench.chaos.campaign import Leader, Struck, StuckError
from bench.chaos.job import job, write_music
from bench.chaos.judge import Result, Trace, damage, differences, noticed, result, trace
from bench.chaos.losses import Life, charged, forgotten, lives
from bench.chaos.plan import Mode, RunPlan
from bench.chaos.report import Judged
from bench.chaos.stages import Rhythm, Stage
from bench.chaos.victims import leftovers

RHYTHM = Rhythm(steps=360, save_every=8, evaluate_every=16)

SWEEP_SECONDS = 30.0
"""What is left of a run that was given up has to be gone by then."""


@dataclass(frozen=True)
class Calm:
    """The undisturbed run of a seed."""

    trace: Trace
    result: Result
    seconds: float


@dataclass(frozen=True)
class Runs:
    """All runs of one mode below `folder`, whose `music` they train on.

    `deadline` is monotonic time; `patience`: seconds without a new step after which a run counts as stuck;
    `device`: what its ranks train on.
    """

    mode: Mode
    folder: Path
    music: Path
    deadline: float
    patience: float
    device: str

    @classmethod
    def below(cls, folder: Path, mode: Mode, deadline: float, patience: float, device: str) -> Runs:
        """Runs in `folder`, with music of their own there."""
        return cls(mode, folder, write_music(folder / "music"), deadline, patience, device)

    def one_by_one(
        self, plans: Sequence[RunPlan], tell: Callable[[Struck], None], say: Callable[[str], None]
    ) -> Iterator[Judged]:
        """Every run of the plan. `tell` hears of each kill, `say` of what comes next. Raises as `through`."""
        for now in plans:
            yield from self.through(now, len(plans), tell, say)

    def at_once(self, plans: Sequence[RunPlan], count: int) -> Iterator[Judged]:
        """The same, `count` runs at a time, each led by a process of its own. Raises as `through`."""
        with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
            try:
                for done in as_completed([pool.submit(_through, self, now, len(plans)) for now in plans]):
                    yield from done.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def through(
        self, now: RunPlan, apart: int, tell: Callable[[Struck], None], say: Callable[[str], None]
    ) -> Iterator[Judged]:
        """One run, and more of them for kills that it ended too early for, their numbers `apart`.

        Kills whose stage a run of their own did not show in time either strike at a step of the next.
        Raises StuckError when the undisturbed run does not succeed.
        """
        job_file = self._job(now.seed)
        say(f"{self.mode} run {now.number}: undisturbed")
        calm = self._undisturbed(job_file, now)
        while now.kills and time.monotonic() < self.deadline:
            say(f"{self.mode} run {now.number}: {len(now.kills)} kills")
            judged, left = self._one(now, job_file, calm, tell)
            yield judged
            if not judged.struck:
                if all(kill.stage is Stage.STEP for kill in left.kills):
                    return
                left = replace(left, kills=tuple(replace(k, stage=Stage.STEP) for k in left.kills))
            now = replace(left, number=now.number + apart)

    def _one(
        self, now: RunPlan, job_file: Path, calm: Calm, tell: Callable[[Struck], None]
    ) -> tuple[Judged, RunPlan]:
        run = self.folder / f"run-{now.number:02d}"
        leader = self._leader(job_file, run, now, now.world, tell)
        began, problems, found = time.monotonic(), [], None
        past: list[Life] = []
        try:
            leader.lead(now.kills)
        except StuckError as error:
            problems.append(str(error))
            _swept(run)
        seconds = time.monotonic() - began
        problems += [f"left over: {line}" for line in leftovers(run)]
        try:
            problems += [f"damaged: {line}" for line in damage(run)]
            problems += noticed(read_ledger(run))
            past = lives(run)
            problems += forgotten(past, leader.led.saved)
            found = (trace(run), result(run))
            problems += differences((calm.trace, calm.result), found)
        except (AurlTrainerError, IndexError) as error:
            problems.append(f"cannot be judged: {error}")
        led = leader.led
        judged = Judged(
            mode=self.mode,
            number=now.number,
            seed=now.seed,
            struck=tuple(charged(led.struck, past)),
            differences=tuple(problems),
            worlds=tuple(w for _, w in sorted(found[0].worlds.items())) if found else (),
            digest=found[1].digest if found else "",
            seconds=seconds,
            calm_seconds=calm.seconds,
        )
        return judged, replace(now, kills=led.left)

    def _undisturbed(self, job_file: Path, now: RunPlan) -> Calm:
        run = self.folder / f"calm-{now.seed}"
        began = time.monotonic()
        self._leader(job_file, run, now, 2, _unheard).lead(())
        seconds = time.monotonic() - began
        return Calm(trace(run), result(run), seconds)

    def _leader(
        self, job_file: Path, run: Path, now: RunPlan, nodes: int, tell: Callable[[Struck], None]
    ) -> Leader:
        return Leader(
            job_file,
            run,
            RHYTHM,
            number=now.number,
            nodes=nodes,
            elastic=self.mode is Mode.EXACT,
            deadline=self.deadline,
            patience=self.patience,
            tell=tell,
        )

    def _job(self, seed: int) -> Path:
        exact: dict[str, Any] = {"reproducibility": "exact", "threads": 1} if self.mode is Mode.EXACT else {}
        return job(
            self.folder / f"job-{seed}",
            self.music,
            nodes={"min": 1, "max": 2},
            steps=RHYTHM.steps,
            seed=seed,
            checkpoint={"every": RHYTHM.save_every, "keep": {"latest": 2, "best": 1}},
            monitor={"evaluate_every": RHYTHM.evaluate_every},
            engine={"device": self.device, **exact},
        )


def _through(runs: Runs, now: RunPlan, apart: int) -> list[Judged]:
    """`Runs.through` in a process of its own."""
    return list(runs.through(now, apart, _unheard, _unheard))


def _unheard(_told: object) -> None:
    """Nobody listens."""


def _swept(run: Path) -> None:
    """Waits until nothing of a killed run is left, as its guard sees to."""
    end = time.monotonic() + SWEEP_SECONDS
    while leftovers(run) and time.monotonic() < end:
        time.sleep(0.2)
