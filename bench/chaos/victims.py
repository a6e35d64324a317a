"""The processes of one `aurl run`, and striking them within a millisecond.

Processes are looked for before a strike is due: looking takes longer than some stages. Not here: when
(campaign.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aurl_operator.backends.local.process.sweep import SUPERVISOR, marked
from aurl_trainer.contract import Env
from bench.chaos.plan import Victim


@dataclass(frozen=True)
class Household:
    """Pids: of `aurl run`, its store, its agents with all below each, and its ranks."""

    run: int = 0
    store: tuple[int, ...] = ()
    agents: dict[int, tuple[int, ...]] = field(default_factory=dict)
    ranks: tuple[int, ...] = ()

    def living_ranks(self) -> frozenset[int]:
        """Those ranks that still live."""
        return frozenset(pid for pid in self.ranks if _lives(pid))

    def victims(self, victim: Victim) -> list[tuple[int, ...]]:
        """What may be struck: for each candidate all its pids."""
        if victim is Victim.RUN:
            return [(self.run,)] if self.run else []
        if victim is Victim.STORE:
            return [(pid,) for pid in self.store if _lives(pid)]
        if victim is Victim.RANK:
            return [(pid,) for pid in self.ranks if _lives(pid)]
        whole = victim is Victim.NODE
        return [(a, *below) if whole else (a,) for a, below in self.agents.items() if _lives(a)]


def household(run: int) -> Household:
    """The processes that `aurl run` with this pid has started and that live now."""
    store: list[int] = []
    agents: dict[int, tuple[int, ...]] = {}
    ranks: list[int] = []
    for child in _children(run):
        line = _line(child)
        if "aurl_trainer.agent store" in line:
            store.append(child)
        elif "aurl_trainer.agent run" in line:
            below = _below(child)
            agents[child] = tuple(below)
            ranks += [pid for pid in below if is_rank(_line(pid))]
    return Household(run, tuple(store), agents, tuple(ranks))


def is_rank(line: str) -> bool:
    """Whether a command line is that of a training process."""
    return line.endswith("aurl_trainer train") and "aurl_trainer.agent" not in line


def strike(found: Household, victim: Victim, pick: int) -> tuple[int, ...]:
    """Signals one candidate, chosen by `pick`. Returns the pids that were signalled."""
    candidates = found.victims(victim)
    if not candidates:
        return ()
    pids = candidates[pick % len(candidates)]
    return send(pids, signal.SIGTERM if victim is Victim.NOTICE else signal.SIGKILL)


def send(pids: Sequence[int], number: signal.Signals) -> tuple[int, ...]:
    """A signal to each; returns those that were there."""
    reached = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            reached.append(pid)
    return tuple(reached)


def leftovers(run_dir: Path) -> list[str]:
    """One line for each process of a run in this directory that still lives."""
    found = marked({Env.RUN_DIR: str(run_dir.resolve()), SUPERVISOR: None})
    return [f"{p.pid}: {_line(p.pid)}" for p in found]


def _lives(pid: int) -> bool:
    try:
        # The state follows the name, which is in brackets. A zombie has been killed already.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def _below(pid: int) -> list[int]:
    """All descendants."""
    found = _children(pid)
    return found + [p for child in found for p in _below(child)]


def _children(pid: int) -> list[int]:
    """Children of all its threads, as the kernel lists them: quicker than asking all processes."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return sorted(found)


def _line(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .rstrip(b"\0")
            .replace(b"\0", b" ")
            .decode(errors="replace")
        )
    except OSError:
        return ""
