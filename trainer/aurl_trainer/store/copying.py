"""Copying one checkpoint to another place: streamed, every hash checked on the way, the manifest last.

All packs that the checkpoint refers to are copied, also those of earlier saves: a place never refers to
another. A copy that was interrupted goes on with the packs that are not there yet.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aurl_trainer.errors import CheckpointError, DamagedError, RefusedError
from aurl_trainer.store.catalog.index import refresh_index
from aurl_trainer.store.format.identity import differences
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.names import GENERATIONS, CheckpointName, is_void
from aurl_trainer.store.format.reading import twice
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.announced import wait_for_removals
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import inspect

BLOCK_BYTES = 8 * 2**20
"""Held in memory at a time."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Copied:
    """What a copy did: packs written, packs that were there and whole, bytes written."""

    name: CheckpointName
    written: int
    there: int
    bytes: int


def copy(
    source: RunStore, name: CheckpointName, target: RunStore, progress: Progress, *, any_run: bool
) -> Copied:
    """Copies the checkpoint `name` into `target`'s place; `progress` is told the bytes that are done.

    With `any_run` the place may hold checkpoints of other runs. Raises DamagedError if the source is not
    whole (nothing counts then at the target), RefusedError if a run trains at the target, or began to while
    this went on, or the place holds another configuration, CheckpointError if a store does not answer, or the
    source was removed meanwhile.
    """
    manifest = source.manifest(name)
    check_target(target, manifest, any_run=any_run)
    written = there = size = 0
    for pack in range(len(manifest.packs)):
        if _is_there(target.location, manifest, pack):
            there += 1
            progress(manifest.packs[pack].bytes)
            continue
        _copy_pack(source.location, target.location, manifest, pack, progress)
        written += 1
        size += manifest.packs[pack].bytes
    data = twice(lambda: _bytes_of(source, manifest))
    _check_untrained(target)  # the packs may have taken hours
    new = target.removed(name)
    target.location.publish(name.manifest, data)
    if new:
        _look_again(target, name)
    # A removal at the target that began before the manifest was there may have taken a pack for a loose one.
    for named in manifest.packs:
        folder = CheckpointName.parse(named.path.split("/")[1])
        wait_for_removals(target.location, folder or name)
    problems = inspect(target, name).problems
    if problems:
        if new:
            target.location.delete([name.manifest])
        raise CheckpointError(
            f"{target.location.uri}: removed while it was copied; copy again: {problems[0]}"
        )
    refresh_index(target)
    return Copied(name, written, there, size)


def _bytes_of(source: RunStore, manifest: Manifest) -> bytes:
    """The object of the manifest that was read before. Raises DamagedError if it says anything else now."""
    data = source.manifest_bytes(manifest.checkpoint)
    if Manifest.parse(data, manifest.name) != manifest:
        raise DamagedError(f"{manifest.name}: two readings of its manifest differ")
    return data


def check_target(target: RunStore, manifest: Manifest, *, any_run: bool) -> None:
    """Raises RefusedError unless the place may take the checkpoint."""
    _check_untrained(target)
    if any_run:
        return
    uri = target.location.uri
    for name in reversed(target.committed()):
        try:
            there = target.manifest(name)
        except DamagedError:
            continue
        lines = differences(there.identity, manifest.identity)
        if lines:
            raise RefusedError(
                f"{uri}: holds checkpoints of another configuration ({lines[0]}); copy to another place, or "
                "use promote, which collects checkpoints of any run under tags"
            )
        return


def _check_untrained(target: RunStore) -> None:
    if target.location.names(GENERATIONS):
        raise RefusedError(
            f"{target.location.uri}: a run saves its own checkpoints there; copy to another place, or begin "
            "a new run with initFrom"
        )


def _look_again(target: RunStore, name: CheckpointName) -> None:
    """Raises RefusedError, having taken the manifest back, if a run began there without having seen it.

    Call it when listings show the manifest, and so all generations that were taken before. One that is not
    greater than the checkpoint's was taken without it, and after a restart the copy would be the newest. A
    greater one has seen the manifest, and may go on from it; or its record makes it void.
    """
    fences = target.fences()
    if any(f.id <= name.generation for f in fences) or is_void(name, fences):
        target.location.delete([name.manifest])
        raise RefusedError(
            f"{target.location.uri}: a run began there while {name} was copied, which was taken back; copy "
            "to another place, or begin a new run with initFrom"
        )


def _is_there(target: Location, manifest: Manifest, pack: int) -> bool:
    """Whether the pack is at the target already, whole as far as this checkpoint refers to it."""
    path, size = manifest.packs[pack].path, manifest.packs[pack].bytes
    try:
        if target.size(path) != size:
            return False
        for _ in _checked(target, manifest, pack):
            pass
    except (FileNotFoundError, DamagedError):
        return False
    return True


def _copy_pack(source: Location, target: Location, manifest: Manifest, pack: int, progress: Progress) -> None:
    path = manifest.packs[pack].path
    try:
        if source.size(path) != manifest.packs[pack].bytes:
            raise DamagedError(f"{manifest.name}: {path} has another size than its manifest says")
        with target.writing(path) as file:
            for block in _checked(source, manifest, pack):
                file.write(block)
                progress(len(block))
    except FileNotFoundError:
        raise CheckpointError(
            f"{source.uri}/{path}: missing, or removed while it was copied; see aurl checkpoints verify"
        ) from None


def _checked(location: Location, manifest: Manifest, pack: int) -> Iterator[bytes]:
    """The pack's bytes in order, in blocks; each chunk's hash is checked when its last byte has come.

    Raises DamagedError naming the tensor, FileNotFoundError.
    """
    path, size = manifest.packs[pack].path, manifest.packs[pack].bytes
    at = 0
    for start, end, digest, tensor in [*_chunks(manifest, pack), (size, size, "", "")]:
        yield from _blocks(location, path, at, start)  # what only other checkpoints refer to
        whole = hashlib.sha256()
        for block in _blocks(location, path, start, end):
            whole.update(block)
            yield block
        if digest and whole.hexdigest() != digest:
            raise DamagedError(f"{manifest.name}: {tensor} in {path}: its hash does not match")
        at = end


def _chunks(manifest: Manifest, pack: int) -> list[tuple[int, int, str, str]]:
    """(start, end, hash of what is stored, tensor) of the pack's chunks, in order.

    Equal contents are stored once. Raises DamagedError for chunks that overlap otherwise.
    """
    found: dict[tuple[int, int], tuple[str, str]] = {}
    for key, tensor in manifest.tensors.items():
        for c in tensor.chunks:
            if c.pack == pack:
                found.setdefault((c.at, c.at + c.bytes), (c.stored or c.hash, key))
    order = sorted(found)
    for (_, end), (start, _) in itertools.pairwise(order):
        if start < end:
            raise DamagedError(f"{manifest.name}: chunks overlap in {manifest.packs[pack].path}")
    return [(start, end, *found[start, end]) for start, end in order]


def _blocks(location: Location, path: str, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        block = location.get(path, start, min(end, start + BLOCK_BYTES))
        if not block:
            raise DamagedError(f"{path}: cut short")
        start += len(block)
        yield block
