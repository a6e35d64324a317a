"""The training loop's view of checkpoints: probe, open, save.

Every method is called by all ranks, at the same point; each returns or raises the same on all of them.
Not here: the format (store/), how a state becomes packs (transfer.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch.distributed as dist

from aurl_trainer.checkpoint.agreement import Ranks
from aurl_trainer.checkpoint.peers.lost import Lost, looking
from aurl_trainer.checkpoint.peers.nearby import Nearby, Sources
from aurl_trainer.checkpoint.peers.neighbours import Neighbours
from aurl_trainer.checkpoint.reading.memory import Loaded
from aurl_trainer.checkpoint.saving.committing import Owner
from aurl_trainer.checkpoint.saving.outcomes import Saved
from aurl_trainer.checkpoint.saving.saver import Saver
from aurl_trainer.checkpoint.saving.upload import Uploader
from aurl_trainer.checkpoint.transfer import State, read
from aurl_trainer.checkpoint.waiting import Waiting
from aurl_trainer.config.checkpoint import CheckpointConfig
from aurl_trainer.errors import AurlTrainerError, CheckpointError, DamagedError
from aurl_trainer.store.aside import set_aside
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.names import CheckpointName
from aurl_trainer.store.format.plain import decode
from aurl_trainer.store.format.reading import Objects, twice
from aurl_trainer.store.incremental import Placed, placed_in, rewritten_after
from aurl_trainer.store.kept import KeepingLocation, KeptPacks
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.presence import BEAT_SECONDS, WATCH_BEATS, Presence, admit
from aurl_trainer.store.retention.passes import retain
from aurl_trainer.store.run_store import Claim, RunStore

T = TypeVar("T")
log = logging.getLogger(__name__)


def _nothing() -> None:
    """Nobody asks for signs of life."""


@dataclass(frozen=True)
class Damage:
    """A checkpoint that was passed over, or that only copies nearby have whole, and why."""

    name: str
    step: int
    message: str


@dataclass(frozen=True)
class Restored:
    """What a run goes on from. `extra` is what `save` was given."""

    step: int
    extra: dict[str, Any]
    name: str
    manifest: Manifest
    digest: str
    """Of the manifest's object: `sha256:` and 64 hexadecimal digits."""
    seconds: float
    """That it took to load, those passed over included."""
    loaded: Loaded
    """What the one that was loaded took on this rank, memory included."""
    sources: Sources = field(default_factory=Sources)
    """Where its bytes came from, over all ranks."""
    damaged: list[Damage] = field(default_factory=list)
    """What was passed over; and this one, if `lost`."""
    lost: bool = False
    """The store has lost of it what copies nearby still had: only another save makes it whole there."""
    metrics: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """The generation this world has taken, and where it resumes (None: from the start)."""

    generation: int
    restored: Restored | None


class Checkpointer:
    """Saves and restores one run's training state at `uri`, any fsspec URL.

    `run` names the run and `fingerprint` is its identity (config: Experiment.identity()): checkpoints of
    another identity are refused. `settings` say how to save and what to keep; its `uri` is not looked at.
    `group` is the process group to agree through (one that moves CPU objects, as gloo does); None: the
    default group, or none at world 1. With `kept`, copies of the packs are kept on each node's disk, and
    after a regroup read from there or from a peer; `serves` is for one rank of each node. On local disks,
    which are as near, nothing is kept. With `beats`, seconds between two, the run shows that it lives,
    until `close`. With `waiting`, `probe` and `open` wait for a store that does not answer. Raises
    CheckpointError for a URL whose protocol is unknown.
    """

    def __init__(
        self,
        uri: str,
        *,
        run: str,
        fingerprint: dict[str, Any],
        settings: CheckpointConfig,
        rank: int,
        world: int,
        group: dist.ProcessGroup | None = None,
        kept: KeptPacks | None = None,
        serves: bool = True,
        beats: float | None = None,
        waiting: Waiting | None = None,
    ) -> None:
        place = Location(uri)
        keeps = kept is not None and not place.local
        self._store = RunStore(KeepingLocation(uri, kept) if kept is not None and keeps else place)
        self._neighbours = Neighbours(kept, serves) if kept is not None and keeps else None
        self._run = run
        self._presence = Presence(place, run, beats) if beats and rank == 0 else None
        self._watch = WATCH_BEATS * (beats or BEAT_SECONDS)
        self._identity = fingerprint
        self._settings = settings
        self._ranks = Ranks(rank, world, group)
        self._waiting = waiting
        self._signs = (_nothing, _nothing) if waiting is None else (waiting.alive, waiting.waits)
        self._claim: Claim | None = None
        self._saver: Saver | None = None

    def probe(self) -> None:
        """Tries the place before any training is done: rank 0 writes an object that every rank must read.

        Listings have caught up then with what was written before: call it before `open`.

        Raises CheckpointError: not writable, not there, no credentials, or not shared by all nodes.
        """
        self._until_answered(self._probe)

    def _probe(self) -> None:
        place = self._store.location
        name = self._ranks.first(place.write_probe)
        try:
            self._ranks.together(lambda: place.read_probe(name))
        finally:
            self._ranks.first(lambda: place.delete([name]))

    def open(self, state: State) -> Opened:
        """Takes a new generation and loads the newest checkpoint that verifies into `state`, in place.

        `state` maps names to parts (parts.py) or to plain trees of tensors. Damaged checkpoints are passed
        over, newest first, each with a warning that names the damaged item, when a second reading of all of
        it has found damage as well; it is also logged, and set aside once this world goes on from an older
        one. One that copies nearby have whole is loaded, though the store has lost some of it: that is told
        in the same way, and no save refers to what is lost.

        What earlier worlds left half done goes afterwards, in a thread.

        Raises RefusedError (checkpoints of another configuration, or another living run are here),
        FencedError (another world opened later), CheckpointError (none verifies, all are set aside, the store
        does not answer, or the checkpoint does not fit the state); after an error `state` may be half loaded.
        """
        return self._until_answered(lambda: self._open(state))

    def _until_answered(self, act: Callable[[], T]) -> T:
        return act() if self._waiting is None else self._waiting.until_answered(act, self._ranks)

    def _open(self, state: State) -> Opened:
        store = self._store

        def claim() -> tuple[Claim, list[CheckpointName]]:
            store.check_identity(self._identity)
            store.check_trained()
            store.usable()  # before a generation is taken for nothing
            admit(store, self._run, take_over=self._settings.take_over, watch=self._watch)
            if self._presence is not None:
                self._presence.begin()
            taken = store.claim(self._run, self._identity, self._ranks.size)
            # Listed only now: what an earlier generation commits after this listing, this one's fence voids.
            # A greater generation's are copies that came at this instant; or its fence is found below.
            return taken, [name for name in store.usable() if name.generation < taken.id]

        self._claim, names = self._ranks.first(claim)
        damaged: list[Damage] = []
        lost: Lost = {}
        manifest: Manifest | None = None
        began = time.monotonic()
        with self._meet() if names else contextlib.nullcontext() as nearby:
            for name in reversed(names):
                try:
                    manifest, digest, loaded, lost = self._load_twice(name, state, nearby)
                    break
                except DamagedError as error:
                    text = f"checkpoint of step {name.step} is damaged and passed over: {error}"
                    damaged.append(Damage(str(name), name.step, text))
                    self._warn(text)
            sources = (
                Sources.of_all(self._ranks.together(nearby.sources)) if nearby is not None else Sources()
            )
        if names and manifest is None:
            raise CheckpointError(
                f"{store.location.uri}: none of its {len(names)} checkpoints is whole; to start anew, give "
                f"the run another place. Last: {damaged[-1].message}"
            )
        seconds = time.monotonic() - began
        self._ranks.first(lambda: self._settle(manifest))
        self._ranks.first(lambda: self._set_aside(damaged))
        earlier = {} if manifest is None else placed_in(manifest, lost)
        self._saver = self._make_saver(self._claim, earlier)
        restored = None
        if manifest is not None:
            if damaged:
                self._warn(f"resuming from step {manifest.step} ({manifest.name}) instead")
            if lost:
                more = f"; and {len(lost) - 1} more" if len(lost) > 1 else ""
                text = (
                    f"checkpoint of step {manifest.step} is damaged on the store, and was loaded from copies "
                    f"nearby; it is saved anew: {min(lost.values())}{more}"
                )
                damaged.append(Damage(manifest.name, manifest.step, text))
                self._warn(text)
            extra = decode(manifest.extra)
            restored = Restored(
                step=manifest.step,
                extra=extra,
                name=manifest.name,
                manifest=manifest,
                digest=digest,
                seconds=seconds,
                loaded=loaded,
                sources=sources,
                damaged=damaged,
                lost=bool(lost),
                metrics=dict(manifest.metrics),
            )
        return Opened(self._claim.id.number, restored)

    def close(self) -> None:
        """The run has ended and needs its place no more: another may begin there at once."""
        if self._presence is not None:
            self._presence.end()

    def _make_saver(self, claim: Claim, earlier: dict[str, Placed]) -> Saver:
        settings = self._settings
        uploader = Uploader(
            self._store.location,
            self._ranks.rank,
            level=settings.compression,
            uploads=settings.uploads,
            whole_every=rewritten_after(settings.whole_every, settings.keep.latest),
        )
        return Saver(
            self._store,
            self._ranks,
            Owner(self._run, self._identity, claim.id),
            uploader,
            first_number=claim.next_number,
            earlier=earlier,
            deadline=settings.deadline,
            retain=self._retain,
        )

    def _meet(self) -> AbstractContextManager[Nearby | None]:
        if self._neighbours is None:
            return contextlib.nullcontext()
        return self._neighbours.meet(self._ranks, self._store.location)

    def _load_twice(
        self, name: CheckpointName, state: State, nearby: Nearby | None
    ) -> tuple[Manifest, str, Loaded, Lost]:
        """As `_load`; what is damaged is read once more, since a run never goes back to what it passed over.

        Damage on one rank is raised on all of them, so all read again.
        """

        def again(error: DamagedError) -> None:
            self._warn(f"checkpoint of step {name.step} is read once more: {error}")

        return twice(lambda: self._load(name, state, nearby), again)

    def _load(
        self, name: CheckpointName, state: State, nearby: Nearby | None
    ) -> tuple[Manifest, str, Loaded, Lost]:
        def manifest_bytes() -> tuple[bytes, float]:
            began = time.monotonic()
            return self._store.manifest_bytes(name), time.monotonic() - began

        data, answered = self._ranks.first(manifest_bytes)
        manifest = Manifest.parse(data, str(name))

        alive, waits = self._signs

        def load(objects: Objects) -> Loaded:
            try:
                return read(state, objects, manifest, alive)
            finally:
                waits()

        lost: Lost = {}
        if nearby is None:
            loads = self._ranks.together(lambda: load(self._store.location))
        else:
            nearby.usual = answered
            share = range(self._ranks.rank, len(manifest.packs), self._ranks.size)
            with looking(self._store.location, manifest, share) as found:
                loads = self._ranks.together(lambda: nearby.load(manifest, load))
                for part in self._ranks.together(found):
                    lost |= part
        alive()
        return manifest, f"sha256:{hashlib.sha256(data).hexdigest()}", loads[self._ranks.rank], lost

    def _settle(self, manifest: Manifest | None) -> None:
        assert self._claim is not None
        resumed = None if manifest is None else manifest.checkpoint
        self._store.settle(self._claim, resumed, run=self._run, identity=self._identity)

    def _set_aside(self, damaged: list[Damage]) -> None:
        """What was passed over stays for whoever can mend it, or finds that only this node read it badly.

        It is void now, and would go with the next retention.
        """
        for one in damaged:
            name = CheckpointName.parse(one.name)
            assert name is not None
            try:
                set_aside(self._store.location, name, [one.message])
            except AurlTrainerError as error:
                log.warning("step %s is not set aside, and goes with older ones: %s", one.step, error)

    @property
    def saver(self) -> Saver:
        """What saves for this generation, in parts that a training loop calls between its steps."""
        if self._saver is None:
            raise RuntimeError("saving before open()")
        return self._saver

    def save(
        self,
        step: int,
        state: State,
        extra: dict[str, Any],
        metrics: dict[str, float] | None = None,
    ) -> Saved:
        """Saves `state` as the checkpoint of `step`, waits for its commit, and removes what is superfluous.

        `extra` is plain: dict, list, tuple, text, numbers, None. `metrics` are kept with it; `val_nll`
        decides which are best.

        Raises CheckpointError when it could not be saved: nothing counts, the older checkpoints stay, and
        training may go on. Raises FencedError when a later generation has taken over: leave.
        """
        try:
            self.saver.begin(step, state, extra, metrics or {})
            saved = self.saver.finish()
        finally:
            self.saver.tidy()
        assert saved is not None
        return saved

    def _retain(self, orphans_only: bool, stop: Callable[[], bool]) -> None:
        """On rank 0, in a thread. It never fails a save: what could not be removed goes the next time."""
        assert self._claim is not None
        try:
            retain(self._store, self._claim.id, self._settings.keep, orphans_only=orphans_only, stop=stop)
        except AurlTrainerError as error:
            log.warning("old checkpoints stay for now: %s", error)

    def _warn(self, text: str) -> None:
        if self._ranks.rank == 0:
            log.warning("%s", text)
