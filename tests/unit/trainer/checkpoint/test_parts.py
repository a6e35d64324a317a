"""The trees that the parts make themselves are those of torch.distributed.checkpoint, name by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

from aurl_trainer.checkpoint.parts import ModelPart, OptimizerPart
from tests.unit.trainer.checkpoint.small import make, train


class Named(nn.Module):
    """With submodules of its own that are called as wrappers call what they wrap."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.inner = nn.ModuleDict({"_orig_mod": nn.Linear(2, 2)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner["_orig_mod"](self.module(x))  # type: ignore[no-any-return]


def small() -> tuple[nn.Module, torch.optim.Optimizer]:
    return make(seed=1)


def named() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = Named()
    return model, torch.optim.AdamW(model.parameters())


def compiled() -> tuple[nn.Module, torch.optim.Optimizer]:
    model, optimizer = make(seed=1)
    return cast(nn.Module, torch.compile(model, backend="eager")), optimizer


def compiled_inside() -> tuple[nn.Module, torch.optim.Optimizer]:
    inside = cast(nn.Module, torch.compile(nn.Linear(2, 2), backend="eager"))
    model = nn.Sequential(nn.Linear(2, 2), inside)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def recomputed() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(2, 2), checkpoint_wrapper(nn.Linear(2, 2)))
    return model, torch.optim.AdamW(model.parameters())


@pytest.mark.parametrize("made", [small, named, compiled, compiled_inside, recomputed])
def test_names_and_tensors_are_those_of_dcp(
    made: Callable[[], tuple[nn.Module, torch.optim.Optimizer]],
) -> None:
    model, optimizer = made()
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.ones_like(p)
    optimizer.step()
    assert described(ModelPart(model).capture()) == described(get_model_state_dict(model))
    captured = OptimizerPart(model, optimizer).capture()
    assert captured["state"], "nothing was compared"
    assert described(captured) == described(get_optimizer_state_dict(model, optimizer))


def test_an_optimizer_without_a_state_is_captured_without_and_stays_so() -> None:
    model, optimizer = make(seed=1)
    captured = OptimizerPart(model, optimizer).capture()
    assert captured["state"] == {} and not optimizer.state
    train(model, optimizer, 1)
    later = OptimizerPart(model, optimizer).capture()
    names = [group["params"] for group in captured["param_groups"]]
    assert names == [group["params"] for group in later["param_groups"]]


def described(tree: Any) -> Any:
    """A tree with the memory and the form of each tensor in its place."""
    if isinstance(tree, torch.Tensor):
        return tree.data_ptr(), tree.dtype, tuple(tree.shape), tree.requires_grad
    if isinstance(tree, dict):
        return {key: described(value) for key, value in tree.items()}
    return [described(value) for value in tree] if isinstance(tree, list) else tree
