"""What a process does with its store when it ends: it opens, saves, retains, collects, tags, leaves music."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aurl_trainer.checkpoint.checkpointer import Checkpointer
from aurl_trainer.config.checkpoint import KeepConfig
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.music import SharedMusic
from aurl_trainer.store.retention.passes import collect
from aurl_trainer.store.retention.removal import all_but_best
from aurl_trainer.store.tags import delete_tag, set_tag
from bench.stops.history import MODELS, RUN, TAG, URI, Past, at, checkpointer, metrics, promote, state_of


@dataclass
class Told:
    """What is known of a process that ended: what it had acknowledged, and what it was about to do."""

    step: int
    """Of the newest save that was acknowledged."""
    tag: tuple[CheckpointName | None, ...] = ()
    """What TAG may name where the work sets it; empty: the work sets none."""


Work = Callable[[Past, Told], None]
"""Does one thing, and says in `Told` how far it has come."""

KEY = "0123abcd"
"""Of the music that is left."""

STRICT = KeepConfig(latest=1, best=0, grace_seconds=0)
"""All but the newest go at once."""


def opening(past: Past, told: Told) -> None:
    """A world forms: claim, load, settle, sweep."""
    _open(past.keep)


def saving(past: Past, told: Told) -> None:
    """A world forms and saves twice, with retention after each."""
    saver, step = _open(past.keep)
    for following in (step + 1, step + 2):
        _save(saver, following, told)


def retaining(past: Past, told: Told) -> None:
    """Retention becomes stricter."""
    saver, step = _open(STRICT)
    _save(saver, step + 1, told)


def collecting(past: Past, told: Told) -> None:
    """Somebody else removes what no rule keeps."""
    collect(at(URI), STRICT)


def thinning(past: Past, told: Told) -> None:
    """The clean-up of a run that is over."""
    all_but_best(Location(URI), RUN, 1, KeepConfig().by)


def tagging(past: Past, told: Told) -> None:
    """A tag is set, moved to an older checkpoint, and deleted."""
    store = at(URI)
    names = store.valid()
    before = past.tags[URI].get(TAG)
    told.tag = (before,)
    for after in [names[-1], names[0], None] if names else []:
        told.tag = (before, after)
        if after is None:
            delete_tag(store, TAG)
        else:
            set_tag(store, TAG, after)
        told.tag = (after,)
        before = after


def promoting(past: Past, told: Told) -> None:
    """The newest checkpoint is copied to another place and gets a tag there."""
    names = at(URI).valid()
    before = past.tags[MODELS].get(TAG)
    told.tag = (before,)
    if names:
        told.tag = (before, names[-1])
        promote(names[-1])
        told.tag = (names[-1],)


def leaving_music(past: Past, told: Told) -> None:
    """A node leaves the music that it has prepared for those to come."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pieces.json", "tokens.bin"):
            (Path(folder) / name).write_bytes(name.encode() * 9)
        SharedMusic(Location(URI)).publish(KEY, Path(folder))


WORKS: dict[str, Work] = {
    "open": opening,
    "save": saving,
    "retention": retaining,
    "gc": collecting,
    "clean-up": thinning,
    "tag": tagging,
    "promote": promoting,
    "music": leaving_music,
}


def _open(keep: KeepConfig) -> tuple[Checkpointer, int]:
    saver = checkpointer(keep)
    saver.probe()
    restored = saver.open(state_of(0)).restored
    saver.saver.tidy()
    return saver, restored.step if restored else 0


def _save(saver: Checkpointer, step: int, told: Told) -> None:
    saver.save(step, state_of(step), {"step": step}, metrics(step))
    told.step = step
