"""All that read, after a flip: each finds the damage, none loads it, and an older checkpoint is used."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from aurl_trainer.checkpoint.transfer import read
from aurl_trainer.errors import AurlTrainerError, CheckpointError, DamagedError
from aurl_trainer.store.catalog.found import find
from aurl_trainer.store.catalog.scan import Run
from aurl_trainer.store.copying import copy
from aurl_trainer.store.export.writing import export
from aurl_trainer.store.format.names import MANIFESTS, PACKS, CheckpointName
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import RECORDS, verify, verify_records
from bench.bitrot.flips import Flip
from bench.bitrot.place import RUN, checkpointer, save, state_of, store
from tests.unit.trainer.store.faulty import FaultyFileSystem

COPY = "faulty://copy"


def problems(objects: Mapping[str, bytes], flip: Flip) -> Iterator[str]:
    """A line for each reader that did not do as it should: none. `objects` are the place's, by path."""
    root = "/rotten/"
    FaultyFileSystem.restore({root + path: data for path, data in objects.items()})
    whole = store()
    names, valid, tags = whole.committed(), whole.valid(), whole.tags()
    manifests = {str(n): whole.manifest(n) for n in names}
    known = {e.name: e for e in find(Run(RUN, whole.location)).entries}
    bad = flip.damages(manifests.values())
    FaultyFileSystem.restore(
        {root + path: flip.of(data) if path == flip.path else data for path, data in objects.items()}
    )
    rotten = store()
    if (rotten.committed(), rotten.valid(), rotten.tags()) != (names, valid, tags):
        yield "other checkpoints count, or other tags"
    for name in names:
        yield from _verified(rotten, name, str(name) in bad)
        yield from _read(rotten, name, str(name) in bad)
        if str(name) in bad:
            yield from _passed_on(rotten, name)
    found = list(verify_records(rotten))
    if [line.partition(":")[0] for line in found] != ([flip.path] if flip.folder in RECORDS else []):
        yield f"verify says of records: {found}"
    here = {e.name: e for e in find(Run(RUN, rotten.location)).entries}
    gone = bad if flip.folder == MANIFESTS else set()
    # The index may still know one whose manifest is damaged: what it says of it was true.
    if {k: v for k, v in here.items() if k not in gone} != {k: v for k, v in known.items() if k not in gone}:
        yield "the catalog says something else"
    yield from _resumed(valid, bad)


def _verified(rotten: RunStore, name: CheckpointName, bad: bool) -> Iterator[str]:
    verdict = verify(rotten, name)
    if verdict.good is bad:
        yield f"verify --deep calls step {name.step} {'whole' if verdict.good else verdict.problems}"


def _read(rotten: RunStore, name: CheckpointName, bad: bool) -> Iterator[str]:
    """Asked for by name, as `run@v3` does."""
    state = state_of(0)
    try:
        read(state, rotten.location, rotten.manifest(name))
    except DamagedError as error:
        if not bad:
            yield f"step {name.step} cannot be read: {error}"
        return
    if bad:
        yield f"step {name.step} was read though it is damaged"
    if not _same(state, state_of(name.step)):
        yield f"step {name.step} was read with other weights"


def _passed_on(rotten: RunStore, name: CheckpointName) -> Iterator[str]:
    """No copy comes of it, nor an exported file, unless the damage is in what that does not hold."""
    target = RunStore(Location(COPY))
    try:
        copy(rotten, name, target, lambda size: None, any_run=True)
        yield f"step {name.step} was copied though it is damaged"
    except DamagedError:
        if target.committed():
            yield f"half a copy of step {name.step} counts"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        try:
            manifest = rotten.manifest(name)
            export(rotten.location, manifest, "model", {}, file)
        except DamagedError:
            if file.exists():
                yield f"half of step {name.step} was exported"
            return
        from safetensors.torch import load_file

        if not _same({"model": load_file(file)}, {"model": state_of(name.step)["model"]}):
            yield f"step {name.step} was exported with other weights"


def _resumed(valid: list[CheckpointName], bad: set[str]) -> Iterator[str]:
    """The next world takes the newest whole one, names what it passed over, and saves on."""
    good = [n for n in valid if str(n) not in bad]
    state = state_of(0)
    saver = checkpointer()
    try:
        restored = saver.open(state).restored
    except CheckpointError as error:
        if good or "is whole" not in str(error):
            yield f"the run cannot go on: {error}"
        return
    if restored is None or not good:
        yield "the run began anew"
        return
    newest = good[-1]
    passed_over = [str(n) for n in valid if n.age > newest.age]
    if restored.step != newest.step or restored.extra != {"step": newest.step}:
        yield f"step {restored.step} was loaded in place of {newest.step}"
    if sorted(d.name for d in restored.damaged) != sorted(passed_over):
        yield f"passed over were {[d.step for d in restored.damaged]}, expected {passed_over}"
    if not _same(state, state_of(newest.step)):
        yield f"step {newest.step} was loaded with other weights"
    try:
        save(saver, newest.step + 1)
    except AurlTrainerError as error:
        yield f"nothing can be saved any more: {error}"
        return
    after = store()
    last = after.valid()[-1]
    if last.step != newest.step + 1 or not verify(after, last).good:
        # What the loaded one refers to was just read and checked: the new one may refer to it as well.
        yield f"the next save (step {last.step}) is not whole: {verify(after, last).problems}"
    if not {str(n) for n in after.aside()}.issuperset(passed_over):
        yield "what was passed over is not set aside"
    loose = {n.partition("/")[0] for n in after.location.names(PACKS)} - {str(n) for n in after.committed()}
    if loose:
        yield f"what the killed save left stays: {sorted(loose)}"


def _same(
    one: Mapping[str, Mapping[str, torch.Tensor]], other: Mapping[str, Mapping[str, torch.Tensor]]
) -> bool:
    return all(torch.equal(one[part][key], other[part][key]) for part in other for key in other[part])
