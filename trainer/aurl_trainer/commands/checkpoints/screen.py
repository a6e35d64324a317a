"""How checkpoints look on a terminal and in a pipe: tables, sizes, times, bars."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import typer

OUTSIDE = "no part of the run's history"
"""What is said of a checkpoint that a later generation went on without."""


class Table:
    """Text in columns; those from `left` on, but the last, hold numbers. Nothing is folded or cut, for pipes.

    Rich's tables do more, and take a tenth of the time in which `list` starts.
    """

    def __init__(self, *titles: str, left: int = 0) -> None:
        self._left = left
        self._rows: list[tuple[str, ...]] = [titles]

    def add_row(self, *cells: str) -> None:
        """One cell for each title."""
        self._rows.append(cells)

    def show(self) -> None:
        """Prints it, the titles bold on a terminal."""
        from rich.cells import cell_len  # a sign may be two columns wide

        widths = [max(map(cell_len, column)) for column in zip(*self._rows, strict=True)]
        last = len(widths) - 1
        for number, row in enumerate(self._rows):
            line = ""
            for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
                blank = " " * (width - cell_len(cell))
                line += f"{blank}{cell}  " if self._left <= place < last else f"{cell}{blank}  "
            typer.echo(line.rstrip() if number else typer.style(line.rstrip(), bold=True))


def size(count: int) -> str:
    """Bytes for people."""
    from rich.filesize import decimal

    return decimal(count)


def when(at: float) -> str:
    """Seconds since the epoch as local time."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def number(value: Any) -> str:
    """A metric's value; nothing where it was not measured."""
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def bytes_bar(title: str, total: int | None, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar over bytes on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


@contextlib.contextmanager
def count_bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar over things on a terminal, nothing elsewhere or for a few."""
    if total < 8 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
