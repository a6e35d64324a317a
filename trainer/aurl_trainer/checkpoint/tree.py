"""A state's tree apart: tensors for the packs, everything else for the manifest; and together again.

A tensor's place in the plain tree is `{"$tensor": key}`, its key the path to it joined by dots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.format.plain import decode, encode

TENSOR = "$tensor"


def split(tree: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], Any]:
    """The tensors of `tree` by key, and its plain rest as JSON.

    Raises CheckpointError naming the first value that is neither a dense tensor nor plain.
    """
    tensors: dict[str, torch.Tensor] = {}
    return tensors, _split(tree, "", tensors)


def _split(value: Any, at: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        if at in tensors:
            raise CheckpointError(f"{at}: two tensors of the state have this name")
        if value.layout is not torch.strided or value.is_quantized:
            raise CheckpointError(f"{at}: only dense tensors can be saved, not {value.layout}")
        tensors[at] = value
        return {TENSOR: at}
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str or key.startswith("$"):
                raise CheckpointError(f"{at or 'state'}: a checkpoint holds only text as keys, not {key!r}")
        return {k: _split(v, f"{at}.{k}" if at else k, tensors) for k, v in value.items()}
    if type(value) is list:
        return [_split(v, f"{at}.{i}", tensors) for i, v in enumerate(value)]
    if type(value) is tuple:
        return {"$tuple": [_split(v, f"{at}.{i}", tensors) for i, v in enumerate(value)]}
    return encode(value, at)


def join(plain: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The tree that `split` took apart. Raises DamagedError for a key without a tensor."""
    if isinstance(plain, list):
        return [join(v, tensors) for v in plain]
    if isinstance(plain, dict):
        if TENSOR in plain:
            if plain[TENSOR] not in tensors:
                raise DamagedError(f"{plain[TENSOR]}: named by the manifest, but not among its tensors")
            return tensors[plain[TENSOR]]
        if "$tuple" in plain:
            return tuple(join(v, tensors) for v in plain["$tuple"])
        if "$float" in plain:
            return decode(plain)
        return {k: join(v, tensors) for k, v in plain.items()}
    return plain


def assign(target: dict[str, Any], loaded: Mapping[str, Any]) -> None:
    """Puts the loaded plain values into `target`, whose tensors are loaded already, branch by branch."""
    for key, value in loaded.items():
        old = target.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            assign(old, value)
        elif not isinstance(value, torch.Tensor) or not isinstance(old, torch.Tensor):
            target[key] = value
    for key in target.keys() - loaded.keys():
        del target[key]
