"""The parts of a training state that hold tensors: a model and its optimizer.

A part gives its tree of live tensors for saving, gives the same tree as the target of a load, and takes what
is not a tensor from a loaded tree. The trees are those of torch.distributed.checkpoint.state_dict: names are
the same with or without DDP or compilation, and for sharded models. Where names hold no wrapper, the trees
are made here: training waits for a capture, and DCP can take as long for one as copying the tensors takes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

WRAPPERS = frozenset({"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
"""What modules around another one call it. A module of one's own may be called so, too: DCP knows."""


@runtime_checkable
class Part(Protocol):
    """What the Checkpointer needs of one entry of the state; a plain dict of tensors will do as well."""

    def capture(self) -> dict[str, Any]:
        """The tree to save: live tensors, not copies."""

    def target(self, saved: Collection[str]) -> dict[str, Any]:
        """The tree to load into; `saved` holds the keys of the tensors in the checkpoint, below this part."""

    def adopt(self, tree: dict[str, Any]) -> None:
        """Takes over a tree whose tensors were loaded in place."""


class ModelPart:
    """A model's parameters and buffers."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def capture(self) -> dict[str, Any]:
        """See Part."""
        state = self._model.state_dict()
        return dict(state if _plain(state) else get_model_state_dict(self._model))

    def target(self, saved: Collection[str]) -> dict[str, Any]:
        """See Part."""
        return self.capture()

    def adopt(self, tree: dict[str, Any]) -> None:
        """See Part."""
        set_model_state_dict(self._model, tree)


class OptimizerPart:
    """An optimizer's state by parameter name, and its parameter groups.

    An optimizer that has not stepped yet has no state, is saved without, and is loaded so: making the state
    up would count one step too many.
    """

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model = model
        self._optimizer = optimizer

    def capture(self) -> dict[str, Any]:
        """See Part."""
        names = {id(p): n for n, p in self._model.named_parameters()}
        if not _plain(names.values()):
            if self._optimizer.state:
                return cast(dict[str, Any], get_optimizer_state_dict(self._model, self._optimizer))
            names = {key: _bare(name) for key, name in names.items()}
        tree = self._optimizer.state_dict()
        order = [names[id(p)] for group in self._optimizer.param_groups for p in group["params"]]
        groups = [g | {"params": [order[number] for number in g["params"]]} for g in tree["param_groups"]]
        return {"state": {order[number]: s for number, s in tree["state"].items()}, "param_groups": groups}

    def target(self, saved: Collection[str]) -> dict[str, Any]:
        """See Part. Makes the optimizer's state if it has none; its weights must be loaded afterwards."""
        having = {p for k in saved if k.startswith("state.") for p in _prefixes(k.removeprefix("state."))}
        if not having:
            return {"state": {}, "param_groups": self.capture()["param_groups"]}
        tree = cast(dict[str, Any], get_optimizer_state_dict(self._model, self._optimizer))
        return {**tree, "state": {k: v for k, v in tree["state"].items() if k in having}}

    def adopt(self, tree: dict[str, Any]) -> None:
        """See Part."""
        if tree["state"]:
            options = StateDictOptions(strict=False)
            set_optimizer_state_dict(self._model, self._optimizer, tree, options=options)
            return
        self._optimizer.state.clear()
        for live, loaded in zip(self._optimizer.param_groups, tree["param_groups"], strict=True):
            live.update({k: v for k, v in loaded.items() if k != "params"})


def _prefixes(key: str) -> list[str]:
    """All that `key` begins with, up to one of its dots."""
    return [key[:i] for i, letter in enumerate(key) if letter == "."]


def _plain(names: Iterable[str]) -> bool:
    """Whether no wrapper may be in any of the names."""
    return all(WRAPPERS.isdisjoint(name.split(".")) for name in names)


def _bare(name: str) -> str:
    """A parameter's name without the wrappers."""
    return ".".join(p for p in name.split(".") if p not in WRAPPERS)
