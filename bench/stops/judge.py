"""What a next process finds after an end: whether what was acknowledged is there, and all else is right."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from aurl_trainer.errors import AurlTrainerError
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.location.place import PROBES, Location
from aurl_trainer.store.music import MUSIC, SharedMusic, unlisted
from aurl_trainer.store.retention.leftovers import STRAY_SECONDS
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.tags import set_tag
from aurl_trainer.store.verify import verify
from bench.stops.history import MODELS, TAG, URI, Past, at, checkpointer, metrics, promote, same, state_of
from bench.stops.works import KEY, Told
from tests.unit.trainer.store.faulty import FaultyFileSystem


def problems(past: Past, work: str, told: Told) -> Iterator[str]:
    """A line for each thing that is wrong after `work` ended and told what it told: none."""
    with FaultyFileSystem.listing_at_once():  # whoever looks later
        names = at(URI).valid()
        yield from _left(past, work, told, names)
    # Whoever goes on meets the store as it is; an hour later, so that what was begun has lost its writer.
    FaultyFileSystem.grow_old(STRAY_SECONDS + 60)
    yield from _going_on(past, names[-1].step if names else 0)
    if work == "tag" and names:
        name = at(URI).valid()[-1]
        set_tag(at(URI), TAG, name)
        if at(URI).tags().get(TAG) != name:
            yield f"{TAG} was set again, and names {at(URI).tags().get(TAG)}"
    if work == "promote" and names:
        yield from _promoted_again()


def _left(past: Past, work: str, told: Told, names: list[CheckpointName]) -> Iterator[str]:
    store = at(URI)
    newest = names[-1].step if names else 0
    if work == "clean-up":  # takes acknowledged saves away on purpose
        if past.acknowledged and not names:
            yield "no checkpoint is left"
    elif newest < told.step:
        yield f"step {told.step} was acknowledged, and the newest is {newest}"
    for name in names:
        yield from verify(store, name).problems
    yield from _music(store.location)
    yield from _tags(past, store, URI, told if work == "tag" else None)
    yield from _tags(past, at(MODELS), MODELS, told if work == "promote" else None)


def _music(place: Location) -> Iterator[str]:
    """Music that a node may fetch is whole."""
    if any(name.count("/") == 1 for name in place.names(MUSIC)):
        with tempfile.TemporaryDirectory() as folder:
            if not SharedMusic(place).fetch(KEY, Path(folder) / KEY):
                yield "music is listed, and cannot be fetched"


def _tags(past: Past, store: RunStore, uri: str, told: Told | None) -> Iterator[str]:
    """What has a tag is there and whole, and tags say what they said, or what they were about to."""
    tags = store.tags()
    for tag, name in tags.items():
        if name not in store.committed():
            yield f"{uri}: {name}, which {tag} names, is gone"
        else:
            yield from verify(store, name).problems
    may = {tag: (name,) for tag, name in past.tags[uri].items()} | ({TAG: told.tag} if told else {})
    for tag in tags.keys() | may.keys():
        if tags.get(tag) not in may.get(tag, (None,)):
            yield f"{uri}: {tag} names {tags.get(tag)}, expected one of {may.get(tag)}"


def _going_on(past: Past, newest: int) -> Iterator[str]:
    """The next world loads the newest to the bit, saves, and tidies up."""
    loaded = state_of(0)
    try:
        saver = checkpointer(past.keep)
        saver.probe()
        restored = saver.open(loaded).restored
        found = restored.step if restored else 0
        if found != newest:
            yield f"step {found} was loaded in place of {newest}"
        if restored and (restored.damaged or not same(loaded, state_of(newest))):
            yield f"step {newest} was loaded with other bytes"
        saver.save(newest + 1, state_of(newest + 1), {"step": newest + 1}, metrics(newest + 1))
    except AurlTrainerError as error:
        yield f"the run cannot go on: {error}"
        return
    with FaultyFileSystem.listing_at_once():
        yield from _tidy(past, newest)


def _tidy(past: Past, newest: int) -> Iterator[str]:
    """After the next save that counts, and nothing stays that nobody needs."""
    after = at(URI)
    committed = after.committed()
    if not after.valid() or after.valid()[-1].step != newest + 1:
        yield "the next save does not count"
    gone = [f"{tag} ({name})" for tag, name in after.tags().items() if name not in committed]
    if gone:
        yield f"retention took what has a tag: {gone}"
    # A newer checkpoint may refer to packs of an older one that is gone.
    aside = after.aside()
    needed = {pack.path for name in committed if name not in aside for pack in after.manifest(name).packs}
    left = {n.partition("/")[0] for n in after.location.names("packs")}
    left -= {p.split("/")[1] for p in needed} | {str(name) for name in aside}
    if left:
        yield f"packs that no checkpoint needs stay: {sorted(left)}"
    strays = [*after.location.names(PROBES), *unlisted(after.location)]
    if strays:
        yield f"probes, or music that nobody lists, stay: {strays}"
    if _partials(after):
        # Half a record of a world that took the same number at the same instant goes with the next world.
        again = checkpointer(past.keep)
        again.open(state_of(0))
        again.saver.tidy()
        if _partials(after):
            yield f"halves stay: {_partials(after)}"


def _promoted_again() -> Iterator[str]:
    """The same command goes on with a promotion that was interrupted."""
    name = at(URI).valid()[-1]
    try:
        promote(name)
    except AurlTrainerError as error:
        yield f"it cannot be promoted again: {error}"
        return
    with FaultyFileSystem.listing_at_once():
        yield from _promoted(name)


def _promoted(name: CheckpointName) -> Iterator[str]:
    target = at(MODELS)
    if target.tags().get(TAG) != name:
        yield f"{name} was promoted again, and {TAG} names {target.tags().get(TAG)}"
    for there in target.committed():
        yield from verify(target, there).problems


def _partials(store: RunStore) -> list[str]:
    return [p for folder in ("manifests", "generations") for p in store.location.partials(folder)]
