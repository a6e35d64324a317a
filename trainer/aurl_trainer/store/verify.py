"""Whether checkpoints are what their manifests say: quickly, or byte for byte. Needs no torch.

Not here: what is done about a damaged one (aside.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aurl_trainer.errors import DamagedError
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.marks import ASIDE, INDEX, REMOVALS, TAGS
from aurl_trainer.store.format.names import GENERATIONS, CheckpointName
from aurl_trainer.store.format.reading import Wanted, check_size, stream, twice
from aurl_trainer.store.format.sealed import unseal
from aurl_trainer.store.presence import PRESENCE
from aurl_trainer.store.run_store import RunStore

RECORDS = (GENERATIONS, TAGS, ASIDE, REMOVALS, INDEX, PRESENCE)
"""Folders of sealed records that hold no weights."""


@dataclass(frozen=True)
class Verdict:
    """What was found. `problems` is empty for a whole checkpoint; one line each, naming the item."""

    name: CheckpointName
    problems: tuple[str, ...]
    manifest: Manifest | None = None

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return not self.problems


def inspect(store: RunStore, name: CheckpointName) -> Verdict:
    """Checks the manifest, and that its packs are there with their sizes; reads no tensor.

    Raises CheckpointError when the store does not answer, or a newer Aurl wrote the manifest.
    """
    try:
        manifest = _manifest(store, name)
    except DamagedError as error:
        return Verdict(name, (str(error),))
    problems = []
    for pack in range(len(manifest.packs)):
        try:
            check_size(store.location, manifest, pack)
        except DamagedError as error:
            problems.append(str(error))
    return Verdict(name, tuple(problems), manifest)


def verify(store: RunStore, name: CheckpointName, progress: Callable[[int], None] | None = None) -> Verdict:
    """Reads all of one checkpoint and checks every hash; `progress` is told the bytes read.

    A pack in which something is wrong is read twice: what happened on the way is no damage of the store.
    Raises as `inspect` does.
    """
    try:
        manifest = _manifest(store, name)
    except DamagedError as error:
        return Verdict(name, (str(error),))
    problems = []
    for pack in range(len(manifest.packs)):
        try:
            _read_pack(store, manifest, pack, progress)
        except DamagedError as error:
            problems.append(str(error))
    return Verdict(name, tuple(problems), manifest)


def _manifest(store: RunStore, name: CheckpointName) -> Manifest:
    return twice(lambda: Manifest.parse(store.manifest_bytes(name), str(name)))


def _read_pack(
    store: RunStore, manifest: Manifest, pack: int, progress: Callable[[int], None] | None
) -> None:
    """Raises DamagedError when the second reading finds damage as well."""
    wanted = [
        Wanted(key, chunk)
        for key, tensor in manifest.tensors.items()
        for chunk in tensor.chunks
        if chunk.pack == pack
    ]
    told = 0

    def read() -> None:
        nonlocal told
        done = 0
        for piece in stream(store.location, manifest, wanted):
            done += piece.stored
            if progress is not None and done > told:
                progress(done - told)
            told = max(told, done)

    twice(read)


def verify_records(store: RunStore) -> Iterator[str]:
    """One line for each record that is not as written: of generations, tags, removals and the like.

    These harm nothing: their names alone decide what counts, and what only their content says is written anew
    or waited for (docs/checkpoint-format.md).
    """
    for folder in RECORDS:
        for name in store.location.names(folder):
            try:
                unseal(store.location.get(f"{folder}/{name}"), f"{folder}/{name}")
            except FileNotFoundError:
                continue  # gone meanwhile
            except DamagedError as error:
                yield str(error)
