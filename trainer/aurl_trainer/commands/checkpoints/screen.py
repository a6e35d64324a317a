"""How checkpoints look on a terminal and in a pipe: tables, sizes, times, bars."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def table(*titles: str, left: int = 0) -> Table:
    """A table without lines; the columns from `left` on, but the last, hold numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False)
    for place, title in enumerate(titles):
        right = left <= place < len(titles) - 1
        made.add_column(title, justify="right" if right else "left", no_wrap=True)
    return made


def show_table(made: Table) -> None:
    """Prints it; a pipe has no width, so nothing is folded there."""
    from rich.console import Console

    Console(width=None if Console().is_terminal else 300).print(made)


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
