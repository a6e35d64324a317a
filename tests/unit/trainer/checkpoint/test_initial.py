"""A run that begins with the weights of another: what fits comes over exactly, the rest is named and new."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from aurl_trainer.checkpoint.initial import Initialised, load_initial
from aurl_trainer.checkpoint.parts import ModelPart, OptimizerPart
from aurl_trainer.checkpoint.weights import Vocabulary
from aurl_trainer.config.reference import Latest
from aurl_trainer.errors import CheckpointError, DamagedError
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.removal import everything
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.checkpoint.small import Small, checkpointer, hash_of, make, train

EXTRA: dict[str, Any] = {
    "model": {"tokenizer": "t1"},
    "experiment": {"engine": {"average": {"use": True}}},
}


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"memory:/{tmp_path}/other"


def save(uri: str, extra: dict[str, Any] | None = None) -> tuple[Small, torch.optim.AdamW, Small]:
    """A run saved at step 2 with an average of other values; model, optimizer and average."""
    model, optimizer = make(1)
    train(model, optimizer, 0, 1)
    average = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.add_(1)
    saver = checkpointer(uri)
    saver.open({})
    state = {"model": ModelPart(model), "optimizer": OptimizerPart(model, optimizer)}
    saver.save(2, state | {"average": ModelPart(average)}, EXTRA if extra is None else extra)
    return model, optimizer, average


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_all_of_it_comes_over_when_all_of_it_fits(uri: str) -> None:
    model, optimizer, average = save(uri)
    new, fresh = make(5)
    begun = load_initial(
        uri, Latest(), new, vocabulary=Vocabulary(file="t1"), weights="model", optimizer=fresh
    )
    assert hash_of(new, fresh) == hash_of(model, optimizer), (
        "weights or optimizer are not those of the other run"
    )
    assert (begun.step, begun.weights, begun.tokenizer, begun.optimizer) == (2, "model", "same", True)
    assert begun.lines() == [
        f"begins with the weights of small, step 2 ({begun.checkpoint} at {Location(uri).uri})"
    ]
    assert same(load(uri, weights="judged")[0], average), "the run is judged by its average"
    unsaid = load(uri, weights="average", vocabulary=None)[1]
    assert unsaid.tokenizer == "unknown" and "which tokenizer" in unsaid.lines()[-1]


def load(uri: str, **options: Any) -> tuple[Small, Initialised]:
    model, _ = make(5)
    return model, load_initial(uri, Latest(), model, **({"vocabulary": Vocabulary(file="t1")} | options))


def test_what_does_not_fit_is_named_and_stays_new(uri: str) -> None:
    model, _, _ = save(uri)
    new, fresh = make(5)
    new.scale = torch.nn.Parameter(torch.ones(3))
    new.more = torch.nn.Parameter(torch.full((2,), 7.0))
    del new.frozen
    begun = load_initial(
        uri, Latest(), new, vocabulary=Vocabulary(file="t1"), weights="model", optimizer=fresh
    )
    assert begun.missing == ("more",) and begun.extra == ("frozen",)
    assert begun.unlike == {"scale": "float32[] there and float32[3] here"}
    assert begun.optimizer is False and not fresh.state
    assert torch.equal(new.embedding.weight, model.embedding.weight)
    assert new.more.tolist() == [7.0, 7.0] and new.scale.tolist() == [1.0] * 3
    text = "\n".join(begun.lines())
    for line in (
        "does not fit, stays new: scale: float32[] there and float32[3] here",
        "not in that checkpoint, stays new: more",
        "only in that checkpoint, left out: frozen",
        "the optimizer's state does not fit",
    ):
        assert line in text
    assert begun.record()["missing"] == ["more"]


def test_weights_by_token_stay_new_under_another_tokenizer(uri: str) -> None:
    model, _, _ = save(uri)
    untouched, _ = make(5)
    new, begun = load(
        uri,
        vocabulary=Vocabulary(file="t2"),
        token_tensors=("embedding.weight", "head.weight"),
        weights="model",
    )
    assert begun.tokenizer == "other" and begun.by_token == ("embedding.weight", "head.weight")
    assert torch.equal(new.embedding.weight, untouched.embedding.weight)
    assert torch.equal(new.layers[0].weight, model.layers[0].weight)
    assert "another tokenizer, so its tokens' weights stay new: embedding.weight" in "\n".join(begun.lines())


def test_versions_of_libraries_make_no_other_tokenizer(uri: str) -> None:
    """The tokenizer's file names them; what its ids mean says more, where both say it."""
    model, _, _ = save(uri, EXTRA | {"prepared": {"vocabulary": "v1"}})
    tokens = ("embedding.weight", "head.weight")
    new, begun = load(uri, vocabulary=Vocabulary("v1", "t2"), token_tensors=tokens, weights="model")
    assert begun.tokenizer == "same" and begun.by_token == ()
    assert torch.equal(new.embedding.weight, model.embedding.weight)
    _, begun = load(uri, vocabulary=Vocabulary("v2", "t1"), token_tensors=tokens, weights="model")
    assert begun.tokenizer == "other" and begun.by_token == tokens


def test_nothing_that_fits_is_an_error_and_so_is_an_average_that_is_not_there(uri: str) -> None:
    saver = checkpointer(uri)
    saver.open({})
    saver.save(1, {"model": ModelPart(torch.nn.Linear(2, 2))}, {})
    with pytest.raises(CheckpointError, match=r"nothing of v000001.* fits this model.*bias is only in the"):
        load(uri)
    with pytest.raises(CheckpointError, match="holds no averaged weights"):
        load(uri, weights="average")


def test_a_damaged_checkpoint_is_not_loaded(uri: str) -> None:
    save(uri)
    location = Location(uri)
    path = RunStore(location).manifest(RunStore(location).valid()[-1]).packs[0].path
    data = bytearray(location.get(path))
    data[10] ^= 1
    location.put(path, bytes(data))
    with pytest.raises(DamagedError, match="its hash does not match"):
        load(uri)


def test_the_other_run_may_be_deleted_afterwards(uri: str, tmp_path: Path) -> None:
    save(uri)
    mine = f"memory:/{tmp_path}/mine"
    model, begun = load(uri, weights="model")
    saver = checkpointer(mine)
    saver.open({})
    saver.save(1, {"model": ModelPart(model)}, {"init_from": begun.record()})
    everything(Location(uri), "small")
    store = RunStore(Location(mine))
    (name,) = store.valid()
    assert {p.path.split("/")[1] for p in store.manifest(name).packs} == {str(name)}, "packs of another run"
    fresh, _ = make(7)
    restored = checkpointer(mine).open({"model": ModelPart(fresh)}).restored
    assert restored is not None and restored.damaged == [] and same(fresh, model)
