"""How much memory a load took: read from the operating system, so that others' buffers count, too."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Loaded:
    """One load on one rank. All sizes in bytes.

    `content` went into tensors and `stored` was read for it. `before` is what the process held when it
    began (0: the system does not say), `peak` the most that it has held up to the end of the load.
    """

    content: int
    stored: int
    seconds: float
    before: int
    peak: int

    def __str__(self) -> str:
        """For a log line."""
        held = f" ({_size(self.before)} before)" if self.before else ""
        return (
            f"loaded {_size(self.content)} in {self.seconds:.1f} s; memory peaked at {_size(self.peak)}{held}"
        )


class Measurement:
    """Begins to measure when made."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._before = resident_bytes()

    def end(self, content: int, stored: int) -> Loaded:
        """What the load took, up to now."""
        return Loaded(content, stored, time.monotonic() - self._begun, self._before, peak_bytes())


def resident_bytes() -> int:
    """What this process holds in memory now; 0 where the system does not say."""
    try:
        pages = int(STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


def peak_bytes() -> int:
    """The most that this process has held since it began."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _size(count: int) -> str:
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
