"""Numbers and causes as people say them. Nothing here knows about runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich import filesize

from aurl_trainer.contract import Cause

CAUSES: dict[str, str] = {
    Cause.SUCCEEDED: "finished",
    Cause.PREEMPTED: "preemption notice",
    Cause.NODE_LOST: "node lost",
    Cause.OUT_OF_MEMORY: "out of memory",
    Cause.CRASH: "crash",
    Cause.FINAL_ERROR: "final error",
    Cause.HANG: "hang",
    Cause.STORE_LOST: "rendezvous store lost",
    Cause.DELETED: "deleted by somebody else",
    Cause.STOPPED: "stopped by Aurl",
    Cause.CHECKPOINT_DAMAGED: "damaged checkpoint",
    Cause.SAVE_FAILED: "failed save",
    Cause.RESUME_MISMATCH: "resume that differs",
    "regrouped": "change of the world",
}


def cause(name: str) -> str:
    """A cause in words; one that is not known here as it is."""
    return CAUSES.get(name, name)


def clock(seconds: float) -> str:
    """Elapsed time for axes: `0:45`, `12:05`, `3:00:00`, `2 d 4 h`."""
    whole = round(seconds)
    if whole >= 172_800:
        days, hours = divmod(round(whole / 3600), 24)
        return f"{days} d {hours} h" if hours else f"{days} d"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration(seconds: float) -> str:
    """Elapsed time for sentences: `0.4 s`, `8.3 s`, `42 s`, `2 min 41 s`, `3 h 5 min`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for small, big, per, limit in (("s", "min", 60, 3600), ("min", "h", 60, 86400), ("h", "d", 24, None)):
        unit = {"s": 1, "min": 60, "h": 3600}[small]
        if limit is None or round(seconds) < limit:
            high, low = divmod(round(seconds / unit), per)
            if not high:
                return f"{low} {small}"
            return f"{high} {big} {low} {small}" if low else f"{high} {big}"
    raise AssertionError("the last row has no limit")


def moment(at: float) -> str:
    """Seconds since the epoch as `2026-05-03 14:02:11 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def size(count: float) -> str:
    """Bytes as `734.0 kB` or `1.2 GB` (powers of ten)."""
    return filesize.decimal(int(count))


def count(number: float) -> str:
    """A large number as `9,120`, `14.2 thousand`, `3.1 million`."""
    for value, unit in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if number >= max(1e4, value * 0.9995):
            return f"{number / value:.3g} {unit}"
    return f"{number:,.0f}"


def plural(number: int, noun: str, many: str | None = None) -> str:
    """`1 node`, `3 nodes`, `no nodes`."""
    word = noun if number == 1 else many or f"{noun}s"
    return f"{number:,} {word}" if number else f"no {word}"


def listing(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else ""
