"""Manifests that say what cannot be: sealed anew by hand, all the same refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aurl_trainer.errors import DamagedError
from aurl_trainer.store.format.manifest import Manifest
from aurl_trainer.store.format.sealed import seal
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.verify import verify
from tests.unit.trainer.store.made import open_run, save


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "file" else f"memory:/{tmp_path}"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tensors": {"a": {"dtype": "object", "size": [1], "chunks": []}}}, "not a type of numbers"),
        ({"packs": [{"path": "packs/../../etc/passwd", "bytes": 1}]}, "packs.0.path"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"step": 11}, "its fields say"),
        ({"format": "torch"}, "not a manifest of Aurl"),
        ({"version": 0}, "format version 0 does not exist"),
        ({"version": "1"}, "format version '1' does not exist"),
    ],
)
def test_a_manifest_that_was_resealed_with_nonsense_is_refused(change: dict[str, Any], says: str) -> None:
    store, claim = open_run("memory://resealed")
    manifest = save(store, claim.id, 1, 10)
    value = json.loads(manifest.to_bytes())
    del value["digest"]
    with pytest.raises(DamagedError, match=says):
        Manifest.parse(seal(value | change), manifest.name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sizes": [99]}, "other bytes than its size"),
        ({"offsets": [1]}, "outside its tensor"),
        ({"offsets": [0, 0]}, "other dimensions"),
        ({"at": 10**9}, "outside its pack"),
        ({"pack": 1}, "outside its pack"),
        ({"codec": "pickle"}, "codec"),
        ({"hash": "x"}, "hash"),
        ({"stored": "0" * 64}, "exactly the compressed chunks"),
    ],
)
def test_a_chunk_that_contradicts_its_tensor_is_refused(change: dict[str, Any], says: str) -> None:
    store, claim = open_run("memory://chunks")
    manifest = save(store, claim.id, 1, 10)
    value = json.loads(manifest.to_bytes())
    del value["digest"]
    chunk = value["tensors"]["b.noise"]["chunks"][0]
    chunk.update(change)
    with pytest.raises(DamagedError, match=says):
        Manifest.parse(seal(value), manifest.name)


def test_a_compressed_chunk_cannot_claim_more_memory_than_its_tensor(uri: str) -> None:
    import hashlib

    import zstandard

    store, claim = open_run(uri)
    manifest = save(store, claim.id, 1, 10)
    bomb = zstandard.compress(bytes(50_000_000))
    path = manifest.packs[0].path
    noise = store.location.get(path)[manifest.tensors["b.noise"].chunks[0].at :]
    store.location.put(path, bomb + noise)
    value = json.loads(manifest.to_bytes())
    del value["digest"]
    value["packs"][0]["bytes"] = len(bomb) + len(noise)
    value["tensors"]["a.zeros"]["chunks"][0].update(bytes=len(bomb), stored=hashlib.sha256(bomb).hexdigest())
    value["tensors"]["b.noise"]["chunks"][0]["at"] = len(bomb)
    store.location.put(manifest.checkpoint.manifest, seal(value))
    (problem,) = verify(RunStore(Location(uri)), manifest.checkpoint).problems
    assert "a.zeros" in problem and "another number of bytes than the tensor" in problem
