"""Removing what no rule keeps, by the run's own writer or by somebody else, while others read and write.

A pass that dies at any instant leaves every remaining manifest with all its packs; the next pass removes the
rest. Not here: which stay (rules.py), what may go (plan.py), what else killed writers left (leftovers.py), a
run that is over (removal.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from aurl_trainer.config.checkpoint import CheckpointConfig, KeepConfig
from aurl_trainer.errors import CheckpointError, DamagedError, FencedError, RefusedError
from aurl_trainer.store.aside import clear_gone
from aurl_trainer.store.catalog.index import refresh_index
from aurl_trainer.store.format.names import PACKS, CheckpointName, Fence, GenerationId
from aurl_trainer.store.location.place import DELETERS, Location
from aurl_trainer.store.retention.announced import announce, clear_dead, in_time
from aurl_trainer.store.retention.leftovers import (
    OldUploads,
    delete_old_partials,
    delete_partials,
    delete_strays,
    end_old_uploads,
    end_uploads,
)
from aurl_trainer.store.retention.plan import Plan, as_visitor, as_writer
from aurl_trainer.store.retention.rules import Committed, kept
from aurl_trainer.store.retention.survey import Survey, survey
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.tags import clear_superseded
from aurl_trainer.store.verify import Verdict, inspect, verify

OPENING_SECONDS = 1800.0
"""A generation that took its number, and has not said in so long from where it goes on, has died."""

SAVE_SECONDS = CheckpointConfig().deadline
"""What a save may take where its run does not say."""


@dataclass(frozen=True)
class Removed:
    """What a pass removed, or would remove: checkpoints, what interrupted saves left, bytes of both, and what
    killed uploads left unseen."""

    checkpoints: tuple[CheckpointName, ...]
    unfinished: tuple[CheckpointName, ...]
    bytes: int
    uploads: OldUploads


def retain(
    store: RunStore,
    mine: GenerationId,
    keep: KeepConfig,
    *,
    orphans_only: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """The writer's pass: call between two saves of generation `mine`. `orphans_only`: no manifest goes, but
    what killed processes and failed saves left. When `stop()` says so, what is not done yet stays.

    Does nothing when a later generation is there, or while a manifest of a newer format could refer to packs
    that this version does not know of. Afterwards the index tells of what is there. Raises CheckpointError
    when the store refuses.
    """
    now = time.time()
    found = survey(store, stop=stop)
    if found is None or stop():
        return
    folders = store.pack_folders()

    def plan(stay_too: Collection[CheckpointName]) -> Plan:
        checkpoints, fences = _as_it_is(store, found.checkpoints)
        stay = {c.name for c in checkpoints} if orphans_only else kept(checkpoints, fences, keep, now)
        return as_writer(checkpoints, folders, [f.id for f in fences], mine, stay.union(stay_too))

    acts: list[Callable[[], object]] = [
        lambda: _remove(store, found, plan, plan(()), stop),
        lambda: delete_partials(store.location, mine),
    ]
    if orphans_only:
        acts.append(lambda: delete_old_partials(store.location))
        acts.append(lambda: delete_strays(store.location))
        acts.append(lambda: end_uploads(store.location, mine))
    _do(acts, stop)
    if stop():
        return
    with contextlib.suppress(FencedError):
        store.check_fence(mine)
        refresh_index(store, found.entries)


def collect(
    store: RunStore,
    keep: KeepConfig,
    *,
    save_seconds: float = SAVE_SECONDS,
    check: Callable[[RunStore, CheckpointName], Verdict] = verify,
    aside_too: bool = False,
    dry_run: bool = False,
) -> Removed:
    """Somebody else's pass, which does no harm to a run that goes on. `dry_run` removes nothing.

    `aside_too`: what is set aside goes as well, unless it has a tag.

    `save_seconds`: what a save of the run may take (`checkpoint.deadline`); an upload that was begun longer
    ago than that, and than the grace, has lost its writer. `check` reads the newest checkpoint that stays, to
    its last byte, before any goes: a damage that nobody has met yet may be why the older ones are needed. A
    dry run looks at its manifest and sizes only.

    Raises RefusedError while a world opens the run, or if that newest one is damaged; CheckpointError if a
    newer Aurl wrote a checkpoint, the store refuses, or `aside_too` would leave nothing that counts.
    """
    now = time.time()
    if aside_too:
        store.usable()
    # In this order: what a world commits after the second look, and before the third, is of the latest
    # generation in the first, or the plan finds another one.
    generations = _settled_generations(store, now)
    found = survey(store, strict=True)
    assert found is not None
    folders = store.pack_folders()

    def plan(stay_too: Collection[CheckpointName]) -> Plan:
        checkpoints, fences = _as_it_is(store, found.checkpoints)
        if {f.id for f in fences} != generations:
            return Plan()  # a world has opened the run meanwhile
        stay = kept(checkpoints, fences, keep, now)
        if aside_too:
            stay -= {c.name for c in checkpoints if c.aside and not c.tagged}
        return as_visitor(checkpoints, folders, generations, stay.union(stay_too), now)

    first = plan(())
    if first.manifests:
        _check_newest(store, first, inspect if dry_run else check)
    sizes = {n: _folder_bytes(store.location, n.folder) for n in first.folders}
    done = first
    if not dry_run:
        done = _remove(store, found, plan, first)
        clear_superseded(store.location)
        clear_gone(store)
        delete_old_partials(store.location)
        delete_strays(store.location)
        refresh_index(store, found.entries)
    before = now - max(save_seconds, keep.grace_seconds)
    uploads = end_old_uploads(store.location, before, dry_run=dry_run)
    committed = {c.name for c in found.checkpoints}
    left = tuple(n for n in done.folders if n not in committed)
    return Removed(done.manifests, left, sum(sizes[n] for n in done.folders), uploads)


def _as_it_is(store: RunStore, found: Sequence[Committed]) -> tuple[list[Committed], list[Fence]]:
    """`found` with what is said about each now; and the generations, read last: nothing may be removed once
    a later one could be reading it."""
    aside = store.aside()
    tagged = set(store.tags().values())
    checkpoints = [replace(c, tagged=c.name in tagged, aside=c.name in aside) for c in found]
    return checkpoints, store.fences()


def _do(acts: Iterable[Callable[[], object]], stop: Callable[[], bool]) -> None:
    """One after the other, until `stop()` says to leave the rest."""
    for act in acts:
        if stop():
            return
        act()


def _remove(
    store: RunStore,
    found: Survey,
    plan: Callable[[Collection[CheckpointName]], Plan],
    first: Plan,
    stop: Callable[[], bool] = lambda: False,
) -> Plan:
    """Announces the `first` plan, plans again, and removes what is still to go."""
    location = store.location
    if not first.manifests and not first.folders:
        return first
    with in_time(location) as bounded:
        announcement = announce(location, {*first.manifests, *first.folders})
        there = set(store.committed())
        second = plan(there.difference(first.manifests))
        came = there.difference(c.name for c in found.checkpoints)
        folders = _unused(store, came, [n for n in second.folders if n in first.folders])

        def remove(names: Sequence[CheckpointName]) -> None:
            bounded.delete([name.manifest for name in names])
            for name in names:
                store.forget(name)

        # All manifests before any pack.
        at_once = range(0, len(second.manifests), DELETERS)
        manifests = [partial(remove, second.manifests[at : at + DELETERS]) for at in at_once]
        _do([*manifests, *(partial(bounded.delete_folder, n.folder) for n in folders)], stop)
    location.delete([announcement])
    clear_dead(location)
    return Plan(second.manifests, folders)


def _unused(
    store: RunStore, came: Collection[CheckpointName], folders: Iterable[CheckpointName]
) -> tuple[CheckpointName, ...]:
    """Those of `folders` that no checkpoint needs which `came` after the survey, as copies do, whose packs
    were loose until then. None if one of these cannot be read: the next pass knows more."""
    used = {name.folder for name in came}
    try:
        used.update(f"{PACKS}/{folder}" for name in came for folder in store.head(name).folders)
    except CheckpointError:
        return ()
    return tuple(n for n in folders if n.folder not in used)


def _settled_generations(store: RunStore, now: float) -> set[GenerationId]:
    """All generations. Raises RefusedError if the latest is still choosing where it goes on from."""
    fences = store.fences()
    settled = {f.id for f in fences if f.settled}
    latest = max(fences, key=lambda f: f.id, default=None)
    if latest is not None and latest.id not in settled:
        at = store.generation_time(latest)
        if at is None or at > now - OPENING_SECONDS:
            raise RefusedError(
                f"{store.location.uri}: a world is opening this run; try again when it trains, "
                f"or in {OPENING_SECONDS / 60:.0f} minutes"
            )
    return {f.id for f in fences}


def _check_newest(store: RunStore, plan: Plan, check: Callable[[RunStore, CheckpointName], Verdict]) -> None:
    """Raises RefusedError if a resume could need one of those that go: the newest that stays is not whole."""
    left = [n for n in store.valid() if n not in plan.manifests]
    if not left:
        return
    newest, uri = left[-1], store.location.uri
    problems = check(store, newest).problems
    if not problems:
        return
    if store.removed(newest):
        raise RefusedError(f"{uri}: the run itself removed {newest} while it was read; try again")
    raise RefusedError(
        f"{uri}: nothing is removed while the newest checkpoint is damaged; "
        f"set it aside first: aurl checkpoints verify {uri} --deep --repair: {problems[0]}"
    )


def _folder_bytes(location: Location, folder: str) -> int:
    total = 0
    for name in location.names(folder):
        with contextlib.suppress(FileNotFoundError, DamagedError):
            total += location.size(f"{folder}/{name}")
    return total
