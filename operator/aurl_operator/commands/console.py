"""The console that commands print to: it shows texts as they are.

Messages of jobs, paths and arguments hold brackets and colons, which are rich's markup and emoji otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """On stdout, or on stderr; style is given beside a text or in a rich Text, never inside a string."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)
