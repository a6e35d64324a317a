"""One part of a checkpoint as one safetensors file: streamed, every hash checked, whole or not there.

The pieces of each chunk are written to their places as they come, so memory is bounded by the stream's
(store/format/reading.py), however large the model and however it was sharded.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from aurl_trainer.errors import CheckpointError
from aurl_trainer.store.export.layout import lay_out, runs
from aurl_trainer.store.format.manifest import Manifest, Tensor
from aurl_trainer.store.format.reading import Objects, Wanted, stream
from aurl_trainer.store.location.disk import PARTIAL, sync_folder


def part_tensors(manifest: Manifest, part: str) -> dict[str, Tensor]:
    """The tensors of a part of the state by the part's own names. Raises CheckpointError if it has none."""
    found = {k.removeprefix(f"{part}."): t for k, t in manifest.tensors.items() if k.startswith(f"{part}.")}
    if not found:
        raise CheckpointError(f"{manifest.name} holds no part {part!r}")
    return found


def export(
    objects: Objects,
    manifest: Manifest,
    part: str,
    metadata: Mapping[str, str],
    target: Path,
    progress: Callable[[int], None] = lambda count: None,
) -> int:
    """Writes the tensors of `part` to `target`, which is replaced only when all is there and durable.

    `progress` is told the bytes of content that were written. Returns the file's size in bytes. Raises
    DamagedError if the checkpoint is not whole, CheckpointError if the store does not answer, the part is not
    there, or the file cannot be written; `target` is then as it was.
    """
    tensors = part_tensors(manifest, part)
    layout = lay_out(tensors, metadata)
    wanted = [Wanted(f"{part}.{k}", c) for k, t in tensors.items() for c in t.chunks]
    with _replacing(target) as file:
        _write(file, 0, memoryview(layout.header))
        os.ftruncate(file, layout.size)
        for piece in stream(objects, manifest, wanted):
            key = piece.item.tensor.removeprefix(f"{part}.")
            for run in runs(tensors[key], piece.item.chunk, piece.at, piece.data.nbytes):
                there = layout.starts[key] + run.target
                _write(file, there, piece.data[run.source : run.source + run.count])
            progress(piece.data.nbytes)
    return layout.size


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[int]:
    """The descriptor of a file that takes `target`'s place when the block ends well, else is gone."""
    partial = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL}")
    try:
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            yield file
            os.fsync(file)
        finally:
            os.close(file)
        _read_back(partial)
        partial.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _write(file: int, at: int, data: memoryview) -> None:
    while data.nbytes:
        count = os.pwrite(file, data, at)
        at, data = at + count, data[count:]


def _read_back(path: Path) -> None:
    """Whether the format's own reader takes header and size. Raises CheckpointError."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise CheckpointError(f"safetensors does not take what was written: {error}") from None
