"""What a process does with its store when it ends: open, save, retain, remove."""

from __future__ import annotations

from collections.abc import Callable

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.removal import all_but_best
from bench.stops.history import URI, Past, checkpointer, metrics, state_of

Work = Callable[[Past, Callable[[int], None]], None]
"""Does one thing; tells the second argument each save that was acknowledged."""


def opening(past: Past, saved: Callable[[int], None]) -> None:
    """A world forms: claim, load, settle, sweep."""
    _open(past)


def saving(past: Past, saved: Callable[[int], None]) -> None:
    """A world forms and saves twice, with retention after each."""
    saver, step = _open(past)
    for following in (step + 1, step + 2):
        saver.save(following, state_of(following), {"step": following}, metrics(following))
        saved(following)


def retaining(past: Past, saved: Callable[[int], None]) -> None:
    """Retention becomes stricter: all but the newest go at once."""
    saver, step = _open(Past(past.objects, KeepConfig(latest=1, best=0, grace_seconds=0), past.acknowledged))
    saver.save(step + 1, state_of(step + 1), {"step": step + 1}, metrics(step + 1))
    saved(step + 1)


def thinning(past: Past, saved: Callable[[int], None]) -> None:
    """The clean-up of a run that is over."""
    all_but_best(Location(URI), 1, KeepConfig().by)


WORKS: dict[str, Work] = {
    "open": opening,
    "save": saving,
    "retention": retaining,
    "clean-up": thinning,
}


def _open(past: Past) -> tuple[Checkpointer, int]:
    saver = checkpointer(past.keep)
    restored = saver.open(state_of(0)).restored
    return saver, restored.step if restored else 0
