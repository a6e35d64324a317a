"""Writes a checkpoint of format version 1, by the rules of that version and none of today's code.

A run of two ranks, one pack each, as Aurl wrote it before ranks could have several packs.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
import zstandard

RUN = "g000001-3578e3f8"
IDENTITY: dict[str, Any] = {"seed": 1, "model": {"dim": 16}}
VERSIONS = {"aurl": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.7", "commit": None}
AT = 1795639381.25


def trained(step: int) -> dict[str, Any]:
    """The state at `step`: types, an empty shape, what shrinks, and what is no tensor."""
    noise = torch.Generator().manual_seed(step)
    return {
        "model": {
            "w": torch.randn(6, 4, generator=noise),
            "zeros": torch.zeros(200),
            "half": torch.randn(5, generator=noise).bfloat16(),
        },
        "optimizer": {"lr": 0.25 / step, "betas": (0.9, 0.95), "n": torch.tensor(step), "worst": math.inf},
    }


def write(folder: Path, *steps: int) -> None:
    """The place of a run that began at the start and saved these steps."""
    record = {"format": "aurl-generation", "version": 1, "at": AT, "versions": VERSIONS, "run": "old"}
    _put(folder / f"generations/{RUN}.json", _sealed({**record, "world": 2, "identity": IDENTITY}))
    began = {**record, "identity": IDENTITY, "last_number": 0}
    _put(folder / f"generations/{RUN}.from-start.json", _sealed(began))
    for number, step in enumerate(steps, start=1):
        _save(folder, number, step)


def _save(folder: Path, number: int, step: int) -> None:
    name = f"v{number:06d}-s{step:08d}-{RUN}"
    state = trained(step)
    packs = [bytearray(), bytearray()]
    model, optimizer = state["model"], state["optimizer"]
    tensors = {
        "model.half": _tensor(packs, "bfloat16", model["half"], [(1, 0, 5)]),
        "model.w": _tensor(packs, "float32", model["w"], [(0, 0, 4), (1, 4, 6)]),
        "model.zeros": _tensor(packs, "float32", model["zeros"], [(0, 0, 200)], shrink=True),
        "optimizer.n": _tensor(packs, "int64", optimizer["n"], [(1, 0, 0)]),
    }
    paths = [f"packs/{name}/rank-{rank:04d}.pack" for rank in (0, 1)]
    for path, data in zip(paths, packs, strict=True):
        _put(folder / path, bytes(data))
    manifest = {
        "format": "aurl-checkpoint", "version": 1, "name": name, "number": number, "step": step,
        "generation": 1, "nonce": "3578e3f8", "run": "old", "at": AT + step, "world": 2,
        "identity": IDENTITY, "versions": VERSIONS, "metrics": {"val_nll": 3.0 - step, "bad": None},
        "extra": {"position": step, "pair": {"$tuple": [1, 2]}},
        "scalars": {
            "model": {key: {"$tensor": f"model.{key}"} for key in model},
            "optimizer": {
                "lr": optimizer["lr"], "betas": {"$tuple": [0.9, 0.95]},
                "n": {"$tensor": "optimizer.n"}, "worst": {"$float": "inf"},
            },
        },
        "packs": [{"path": path, "bytes": len(data)} for path, data in zip(paths, packs, strict=True)],
        "tensors": tensors,
    }  # fmt: skip
    _put(folder / f"manifests/{name}.json", _sealed(manifest))


def _tensor(
    packs: list[bytearray],
    dtype: str,
    tensor: torch.Tensor,
    boxes: list[tuple[int, int, int]],
    *,
    shrink: bool = False,
) -> dict[str, Any]:
    """A tensor in chunks of rows, (rank, first, end) each; written behind what that rank's pack holds."""
    chunks = []
    for rank, first, end in boxes:
        part = tensor[first:end] if tensor.dim() else tensor
        content = part.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        stored = zstandard.ZstdCompressor(level=3).compress(content) if shrink else content
        rest = [0] * (tensor.dim() - 1)
        chunk: dict[str, Any] = {
            "offsets": [first, *rest] if tensor.dim() else [],
            "sizes": list(part.shape),
            "pack": rank,
            "at": len(packs[rank]),
            "bytes": len(stored),
            "hash": hashlib.sha256(content).hexdigest(),
        }
        if shrink:
            chunk |= {"codec": "zstd", "stored": hashlib.sha256(stored).hexdigest()}
        packs[rank] += stored
        chunks.append(chunk)
    return {"dtype": dtype, "size": list(tensor.shape), "chunks": chunks}


def _sealed(value: dict[str, Any]) -> bytes:
    body = json.dumps(value, separators=(",", ":")).encode()[:-1]
    return body + b',"digest":"sha256:' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
