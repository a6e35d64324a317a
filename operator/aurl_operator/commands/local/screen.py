"""What `aurl run` shows while a run lives: the logs' lines, what happened, and one line of progress.

On a terminal the lines have colours and a live line below them; in a pipe they are plain. If nobody can read
any more (a closed terminal, a broken pipe) it falls silent, and the run goes on. Not here: the summary at the
end (`summary.py`), and where lines come from (`backends/local/process/follow.py`).
"""

from __future__ import annotations

import zlib

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aurl_operator.api.status import JobStatus
from aurl_operator.backends.local.process.follow import Follower
from aurl_operator.backends.local.supervisor import Moment
from aurl_trainer.contract import NOTICED, LedgerEntry

_COLOURS = ("cyan", "magenta", "green", "blue", "yellow", "bright_cyan", "bright_magenta", "bright_green")
_LABEL_WIDTH = 16
_KINDS = {"incident": "bold red", "recovered": "bold green", "phase": "bold", "generation": "", "node": "dim"}


class Screen:
    """A watcher of the supervisor. `close` it before anything else is printed."""

    def __init__(self, console: Console, follower: Follower, quiet: bool) -> None:
        """`quiet`: what happened is shown, the processes' own lines are not."""
        self._console = console
        self._follower = follower
        self._quiet = quiet
        self._silent = False
        self._interrupts = 0
        self._trouble: str | None = None
        live = console.is_terminal and not quiet
        self._live = Live(console=console, auto_refresh=False, transient=True) if live else None
        if self._live is not None:
            self._live.start()

    def __call__(self, moment: Moment) -> None:
        """Shows what is new since the last moment."""
        try:
            self._show(moment)
        except OSError:
            self._silent = True

    def say(self, text: str, style: str = "") -> None:
        """One line of our own."""
        if not self._silent:
            self._console.print(Text.assemble((_label("aurl"), "bold"), (text, style)), soft_wrap=True)

    def close(self) -> None:
        """Shows the rest of the logs and takes the live line away."""
        try:
            self._lines(final=True)
            if self._live is not None:
                self._live.stop()
        except OSError:
            self._silent = True

    def _show(self, moment: Moment) -> None:
        self._lines()
        for entry in moment.entries:
            self.say(describe(entry), _KINDS.get(entry.kind, ""))
        if moment.interrupts > self._interrupts:
            once = moment.interrupts == 1
            self._interrupts = moment.interrupts
            words = "saving and leaving; Ctrl-C once more stops at once" if once else "stopping at once"
            self.say(words, "bold yellow")
        if moment.trouble != self._trouble:
            self._trouble = moment.trouble
            self.say(
                moment.trouble or "it can be written again", "bold red" if moment.trouble else "bold green"
            )
        if self._live is not None and not self._silent:
            self._live.update(_progress_line(moment.status, self._console.width), refresh=True)

    def _lines(self, final: bool = False) -> None:
        for line in self._follower.read(final):
            if self._silent or self._quiet:
                continue
            colour = _COLOURS[zlib.crc32(line.label.partition(" ")[0].encode()) % len(_COLOURS)]
            text = Text.from_ansi(line.text)
            self._console.print(Text.assemble((_label(line.label), colour), text), soft_wrap=True)


def describe(entry: LedgerEntry) -> str:
    """A ledger entry as a line for people."""
    who = ", ".join(entry.nodes)
    at_step = f" at step {entry.step}" if entry.step is not None else ""
    if entry.kind == "incident":
        about = f": {entry.message}" if entry.message else ""
        if entry.cause in NOTICED:
            return f"{entry.cause}{at_step}{about}"
        return f"lost {who or 'the run'} ({entry.cause}){at_step}{about}"
    if entry.kind == "recovered":
        parts = []
        if entry.recovery_seconds is not None:
            parts.append(f"next step after {entry.recovery_seconds:.1f} s")
        if entry.steps_redone is not None:
            parts.append(f"{entry.steps_redone} steps done again")
        if entry.lost_seconds is not None:
            parts.append(f"{entry.lost_seconds:.1f} s lost in all")
        return f"recovered from the loss of {who or 'the run'}: " + (", ".join(parts) or "going on")
    if entry.kind == "generation":
        return entry.message + (f", going on from step {entry.step}" if entry.step else "")
    if entry.kind == "phase":
        about = entry.message.removeprefix(f"{entry.phase}: ")
        return f"{entry.phase}" + (f": {about}" if about else "")
    return f"{who}: {entry.message}" if who else entry.message


def _label(text: str) -> str:
    return f"{text:<{_LABEL_WIDTH}} │ "


def _progress_line(status: JobStatus, width: int) -> Table:
    line = Table.grid(padding=(0, 2))
    nodes = f"{status.nodes.ready}/{status.nodes.desired} nodes"
    cells: list[Text | ProgressBar] = [Text(status.phase.value, "bold"), Text(nodes)]
    progress = status.progress
    if progress is not None and progress.total:
        bar = ProgressBar(total=progress.total, completed=progress.step, width=max(10, min(40, width - 90)))
        cells += [bar, Text(f"{progress.step}/{progress.total} steps")]
        if progress.loss is not None:
            cells.append(Text(f"loss {progress.loss:.3f}"))
        if progress.tokens_per_second is not None:
            cells.append(Text(f"{progress.tokens_per_second:,.0f} tokens/s"))
        if progress.eta_seconds is not None:
            cells.append(Text(f"{duration(progress.eta_seconds)} left"))
    elif status.message:
        cells.append(Text(status.message, overflow="ellipsis", no_wrap=True))
    line.add_row(*cells)
    return line


def duration(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, left = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
