"""Which runs lie below one place. Not here: what is in them (index.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aurl_trainer.contract import RunFile
from aurl_trainer.errors import MissingError
from aurl_trainer.store.choose import checkpoints_of
from aurl_trainer.store.format.names import GENERATIONS, MANIFESTS, PACKS
from aurl_trainer.store.location.place import Location

DEPTH = 4
"""Folders below the place in which runs are looked for."""

THREADS = 16
"""Requests at a time: a store takes its time to answer, not its processor's."""


@dataclass(frozen=True)
class Run:
    """A run's place, and what it is called: its path below the place that was searched.

    `alone`: that place is the run itself.
    """

    name: str
    location: Location
    alone: bool = False


def is_run(folders: list[str]) -> bool:
    """Whether a place with these folders in it holds a run's checkpoints."""
    return MANIFESTS in folders or (GENERATIONS in folders and PACKS in folders)


def runs_at(asked: str) -> list[Run]:
    """The run that `asked` names (a directory, URL or name), or all runs below the place that it names.

    Raises MissingError when nothing is there, CheckpointError when the store does not answer.
    """
    try:
        return runs_below(checkpoints_of(asked))
    except MissingError:
        there = os.path.isdir(asked)  # noqa: PTH112 - Path's raises for a name that is too long
        runs = runs_below(asked) if there else []
        if not runs:
            raise
        return runs


def runs_below(url: str) -> list[Run]:
    """All runs at `url` and below it, by name. Raises CheckpointError when the store does not answer."""
    top = Location(url)
    inside = top.folders("")
    if is_run(inside):
        return [Run(run_name(url), top, alone=True)]
    with ThreadPoolExecutor(THREADS) as pool:
        found: list[str] = []
        level = inside
        for _ in range(DEPTH):
            listings = list(pool.map(top.folders, level))
            found += [path for path, folders in zip(level, listings, strict=True) if is_run(folders)]
            level = list(_next_level(level, listings))
    runs = [Run(_called(path), top.below(path)) for path in found]
    return sorted(runs, key=lambda r: r.name)


def _next_level(level: list[str], listings: list[list[str]]) -> Iterator[str]:
    for path, folders in zip(level, listings, strict=True):
        if not is_run(folders):
            yield from (f"{path}/{f}" for f in folders if not f.startswith("."))


def _called(path: str) -> str:
    """A run's directory holds its checkpoints in a folder that says nothing."""
    return path.removesuffix(f"/{RunFile.CHECKPOINTS}")


def run_name(url: str) -> str:
    """What the run at `url` is called."""
    return _called(url.rstrip("/")).rpartition("/")[2] or url
