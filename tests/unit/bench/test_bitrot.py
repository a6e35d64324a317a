"""A bit flips in every object of a run's place in turn: all that read find it, and load what is whole.

And that bench/bitrot would notice a reader that trusts what it reads.
"""

from __future__ import annotations

import pytest
import zstandard

from aurl_trainer.store.format import reading
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.marks import ASIDE, INDEX, REMOVALS, TAGS
from aurl_trainer.store.format.names import GENERATIONS, MANIFESTS, PACKS
from aurl_trainer.store.presence import PRESENCE
from bench.bitrot.flips import Flip, flips
from bench.bitrot.judge import problems
from bench.bitrot.place import make


@pytest.fixture(scope="module")
def objects() -> dict[str, bytes]:
    return {path.removeprefix("/rotten/"): data for path, data in make().items()}


def wrong(objects: dict[str, bytes], which: list[Flip]) -> list[str]:
    return [f"bit {f.bit} of {f.path}: {problem}" for f in which for problem in problems(objects, f)]


def test_a_flip_in_any_object_is_found_and_never_loaded(objects: dict[str, bytes]) -> None:
    which = list(flips(objects, 1, seed=1))
    kinds = {MANIFESTS, PACKS, GENERATIONS, TAGS, ASIDE, REMOVALS, INDEX, PRESENCE}
    assert {f.folder for f in which} == kinds, "not every kind of object is there"
    assert not (bad := wrong(objects, which)), "\n".join(bad)


def test_the_same_where_tensors_are_streamed(
    objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PIECE_BYTES", 64)  # as if each were larger than 8 MiB
    packs = {path: data for path, data in objects.items() if path.endswith(".pack")}
    which = [f for f in flips(packs, 2, seed=2) if f.path != max(packs)]
    assert not (bad := wrong(objects, which)), "\n".join(bad)


def test_a_reader_without_hashes_would_be_noticed(
    objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trusting(manifest: Manifest, item: reading.Wanted, stored: memoryview) -> memoryview:
        if item.chunk.codec == "raw":
            return stored
        try:
            return memoryview(zstandard.ZstdDecompressor().decompress(stored))
        except zstandard.ZstdError as error:
            raise reading.DamagedError(str(error)) from None

    monkeypatch.setattr(reading, "_small", trusting)
    newest = max(path for path in objects if path.startswith(MANIFESTS))
    pack = next(iter(p.path for p in Manifest.parse(objects[newest], newest[10:-5]).packs))
    bad = wrong(objects, [Flip(pack, 3)])
    assert any("was read though it is damaged" in line for line in bad), bad
    assert any("loaded with other weights" in line for line in bad), bad
