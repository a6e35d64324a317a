"""Checkpoints without torch, for tests of the store."""

from __future__ import annotations

import random
import time
from typing import Any

from aurl_trainer.store.format.manifest import FORMAT, VERSION, Chunk, Manifest, Pack, Tensor
from aurl_trainer.store.format.names import CheckpointName, GenerationId
from aurl_trainer.store.format.packs import PackWriter
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import Claim, RunStore

IDENTITY: dict[str, Any] = {"seed": 1, "model": {"dim": 64}}


RUN = "run"


def open_run(uri: str, identity: dict[str, Any] | None = None, *, run: str = RUN) -> tuple[RunStore, Claim]:
    """A world that opens the run, as the Checkpointer does, without loading."""
    store = RunStore(Location(uri))
    mine = identity or IDENTITY
    store.check_identity(mine)
    claim = store.claim(run, mine, 1)
    valid = store.valid()
    store.settle(claim, valid[-1] if valid else None, run=run, identity=mine)
    return store, claim


def save(
    store: RunStore,
    generation: GenerationId,
    number: int,
    step: int,
    nll: float | None = None,
    level: int = 3,
    *,
    at: float | None = None,
    like: Manifest | None = None,
    **fields: Any,
) -> Manifest:
    """One save of two tensors: one that compresses, one that does not.

    `like`: it refers to the zeros of that earlier save. `fields` are the manifest's own, as `metrics`.
    """
    name = CheckpointName(number, step, generation)
    contents = {"a.zeros": bytes(400), "b.noise": random.Random(step).randbytes(400)}
    chunks = {}
    with store.location.writing(name.pack(0)) as file:
        pack = PackWriter(file, level)
        for key, data in contents.items():
            stored = pack.add(memoryview(data))
            chunks[key] = Chunk(
                offsets=(0,), sizes=(100,), pack=0, at=stored.at, bytes=stored.bytes,
                codec=stored.codec, hash=stored.hash, stored=stored.stored,
            )  # fmt: skip
    packs = [Pack(path=name.pack(0), bytes=pack.bytes)]
    if like is not None:
        packs.append(like.packs[0])
        chunks["a.zeros"] = like.tensors["a.zeros"].chunks[0].model_copy(update={"pack": 1})
    manifest = Manifest(
        format=FORMAT,
        version=VERSION,
        name=str(name),
        number=number,
        step=step,
        generation=generation.number,
        nonce=generation.nonce,
        run=RUN,
        at=time.time() if at is None else at,
        world=1,
        identity=IDENTITY,
        versions={"aurl": "0"},
        metrics={} if nll is None else {"val_nll": nll},
        extra={},
        scalars={},
        packs=tuple(packs),
        tensors={k: Tensor(dtype="float32", size=(100,), chunks=(c,)) for k, c in chunks.items()},
    )
    manifest = manifest.model_copy(update=fields)
    store.commit(manifest)
    return manifest


def flip(location: Location, name: str, at: int = -1) -> None:
    """One bit of an object changes; its size does not."""
    data = bytearray(location.get(name))
    data[at] ^= 1
    location.put(name, bytes(data))
