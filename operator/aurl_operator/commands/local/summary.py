"""The lines after a run: how it ended, what it cost, where its results are, what to do next.

Not here: what is shown while it runs (`screen.py`).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from aurl_operator.api.status import JobPhase, JobStatus
from aurl_operator.commands.local.screen import duration
from aurl_trainer.contract import RunFile


def shown(path: Path) -> str:
    """`path` as one would type it here: relative if it lies below the working directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def summary(name: str, status: JobStatus, run_dir: Path) -> list[str]:
    """Lines for people about a run that has ended or was interrupted."""
    lines = [f"{status.phase.value}: {name}" + (f" ({status.message})" if status.message else "")]
    progress = status.progress
    if progress is not None:
        done = f"{progress.step} of {progress.total} steps"
        figures = [f"{progress.total} steps" if status.phase is JobPhase.SUCCEEDED else done]
        if (seconds := elapsed(status)) is not None:
            figures.append(f"{duration(seconds)} in all")
        if progress.loss is not None:
            figures.append(f"loss {progress.loss:.4f}")
        if progress.val_loss is not None:
            figures.append(f"validation NLL {progress.val_loss:.4f} a token")
        lines.append("  " + ", ".join(figures))
    lines += ["  " + line for line in (*_costs(status), *_places(run_dir))]
    return lines


def elapsed(status: JobStatus) -> float | None:
    """Seconds from the run's first start to its end, if it has both."""
    if status.start_time is None or status.completion_time is None:
        return None
    start, end = (datetime.fromisoformat(t) for t in (status.start_time, status.completion_time))
    return (end - start).total_seconds()


def _costs(status: JobStatus) -> list[str]:
    lines = []
    if status.goodput.ratio:
        lost = ", ".join(f"{cause} {seconds:.0f} s" for cause, seconds in status.goodput.lost_seconds.items())
        lines.append(f"goodput {status.goodput.ratio:.0%}" + (f", lost to {lost}" if lost else ""))
    if status.restarts:
        lines.append(
            "incidents: " + ", ".join(f"{n} {cause}" for cause, n in sorted(status.restarts.items()))
        )
    return lines


def _places(run_dir: Path) -> list[str]:
    samples = run_dir / RunFile.SAMPLES
    found = {"samples": samples, "report": run_dir / RunFile.REPORT, "logs": run_dir / RunFile.LOGS}
    exist = {n: p for n, p in found.items() if p.is_file() or (p.is_dir() and any(p.iterdir()))}
    return [f"{name:<8} {shown(path)}" for name, path in exist.items()]
