"""Finding checkpoints: the language of --where, where runs lie, and differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurl_trainer.errors import QueryError
from aurl_trainer.store.catalog.difference import difference
from aurl_trainer.store.catalog.entries import Entry
from aurl_trainer.store.catalog.found import find
from aurl_trainer.store.catalog.scan import Run, runs_below
from aurl_trainer.store.catalog.where import Where, sort_field, sorted_by
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.run_store import RunStore
from tests.unit.trainer.store.made import open_run, save

EXPERIMENT: dict[str, Any] = {"from_preset": "quick_test", "seed": 1, "model": {"dim": 64, "mode": "vae"}}


def entry(step: int = 100, tags: tuple[str, ...] = (), **metrics: float | None) -> Entry:
    return Entry(
        name=f"v{step}", run="bach", number=1, step=step, generation=1, at=1_700_000_000.0, world=2, bytes=10,
        metrics=metrics, config={**EXPERIMENT, "versions": {"torch": "2"}}, tags=tags,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("val_nll<0.5 and preset='quick_test'", True),
        ("val_nll < 0.5 and preset = 'high_quality'", False),
        ("val_nll == .25 or step = 1", True),
        ("not (step >= 100)", False),
        ("50 < step <= 100", True),
        ("model.dim >= 64 and model.mode in ['vae', 'vae_gan']", True),
        ("'paper' in tags and not 'draft' in tags", True),
        ("metrics['groove/16th'] > -1", True),
        ("metrics.val_nll != 0.25", False),
        ("groove < 1 or groove >= 1", False),  # not measured: neither holds
        ("groove is None and val_nll is not None", True),
        ("at > '2023-11-01' and at < '2023-12-01 12:00'", True),
        ("versions.torch = '2'", True),
        ("  run = 'b\u00fcch' or run='bach'", True),
    ],
)
def test_what_a_condition_means(text: str, expected: bool) -> None:
    metrics: dict[str, float | None] = {"val_nll": 0.25, "groove": None, "groove/16th": 0.5}
    found = entry(tags=("paper",), **metrics)
    assert bool(Where.parse(text).select([found])) == expected


@pytest.mark.parametrize(
    ("text", "points_at", "says"),
    [
        ("step >", "", "not understood here"),
        ("step = 1 and open('x')", "open", "a comparison, as in step > 100"),
        ("step = 1 and 2 < len(run)", "len", "expected a field, a number"),
        ("run = 'a' and step", "step", "a condition is a comparison"),
        ("val_nl < 1", "val_nl", "no checkpoint has 'val_nl'; did you mean val_nll?"),
        ("run = 'a' or quality.x < 1", "quality.x", "no checkpoint has 'quality.x'"),
        ("run = 'b' or step < 'many'", "'many'", "a number cannot be compared with text"),
        ("at > 'yesterday'", "'yesterday'", "expected a date"),
        ("step is 4", "4", "go with None"),
        ("run = f'{x}'", "f'", "expected a field"),
        ("(lambda: 1)() = 1", "(lambda", "expected a field"),
        ("run.__class__ = 1", "run.__class__", "no checkpoint has"),
        ("metrics > 1", "metrics", "no checkpoint has 'metrics'"),
        ("metrics[0] > 1", "metrics", "expected a field"),
        ("step + 1 > 2", "step", "expected a field"),
        ("", None, "a condition is one line"),
        ("run" + ".x" * 1900 + " = 1", "run", "more than 100 things inside of each other"),
        ("not " * 900 + "step = 1", "not", "more than 100 things inside of each other"),
    ],
)
def test_what_is_not_understood_is_pointed_at(text: str, points_at: str | None, says: str) -> None:
    with pytest.raises(QueryError) as error:
        Where.parse(text).select([entry(val_nll=0.25)])
    lines = str(error.value).splitlines()
    assert says in lines[0]
    if points_at is not None:
        assert lines[1][2:] == text
        assert text[lines[2].index("^") - 2 :].startswith(points_at), str(error.value)


@given(st.text(max_size=40) | st.text("stepvalnlrun<>=!'\"()[]. andornotin0123456789-", max_size=40))
def test_any_text_is_a_condition_or_a_query_error(text: str) -> None:
    try:
        Where.parse(text).select([entry(val_nll=0.25)])
    except QueryError as error:
        assert str(error)


def test_order_puts_those_without_last() -> None:
    entries = [entry(1, val_nll=2.0), entry(2), entry(3, val_nll=1.0)]
    assert [e.step for e in sorted_by(entries, sort_field("val_nll"), entries)] == [3, 1, 2]
    assert [e.step for e in sorted_by(entries, sort_field("-val_nll"), entries)] == [1, 3, 2]
    with pytest.raises(QueryError, match=r"no checkpoint has 'groove'; there are: .*val_nll"):
        sorted_by(entries, sort_field("groove"), entries)
    with pytest.raises(QueryError, match="expected a field"):
        sort_field("val_nll +")


@pytest.mark.parametrize(
    "text", ["(" * 5000 + "a" + ")" * 5000, "~" * 100_000 + "a", "a" + ".b" * 5000, "a\0b", "-" * 5000]
)
def test_an_order_that_nobody_means_is_an_error_of_one_line(text: str) -> None:
    with pytest.raises(QueryError, match="expected a field"):
        sort_field(text)


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "file" else f"memory:/{tmp_path}/store"


def test_runs_are_found_wherever_they_lie(url: str) -> None:
    for place in ("bach", "team/mozart", "local/checkpoints"):
        store, claim = open_run(f"{url}/{place}")
        save(store, claim.id, 1, 10)
    Location(url).put("notes/readme.txt", b"no run")
    assert [r.name for r in runs_below(url)] == ["bach", "local", "team/mozart"]
    (alone,) = runs_below(f"{url}/team/mozart")
    assert (alone.name, alone.alone) == ("mozart", True)
    assert find(runs_below(url)[2]).entries[0].run == "team/mozart"


def test_a_damaged_manifest_is_named_and_the_others_are_found(url: str) -> None:
    store, claim = open_run(url)
    names = [save(store, claim.id, n, n).checkpoint for n in (1, 2)]
    store.location.put(names[0].manifest, b"{}")
    found = find(Run("bach", store.location))
    assert [e.step for e in found.entries] == [2]
    assert len(found.problems) == 1 and "digest does not match" in found.problems[0]


def test_how_two_checkpoints_differ() -> None:
    store, claim = open_run("memory://difference")
    a = save(store, claim.id, 1, 10, 2.0, extra={"experiment": EXPERIMENT})
    other = {**EXPERIMENT, "model": {"dim": 128, "mode": "vae"}}
    b = save(store, claim.id, 2, 20, 1.5, extra={"experiment": other})
    found = difference(a, b)
    assert found.config == ("model.dim: 64 -> 128",)
    assert found.metrics == {"val_nll": (2.0, 1.5)}
    assert found.tensors == {"b.noise": "other values"} and found.same_tensors == 1
    wider = {**b.tensors, "c.new": b.tensors["a.zeros"]}
    narrow = {"a.zeros": b.tensors["a.zeros"].model_copy(update={"dtype": "int32"})}
    found = difference(b.model_copy(update={"tensors": wider}), b.model_copy(update={"tensors": narrow}))
    assert found.tensors == {
        "a.zeros": "float32[100] -> int32[100]",
        "b.noise": "only in the first",
        "c.new": "only in the first",
    }
    halves = b.tensors["b.noise"].model_copy(update={"chunks": ()})
    found = difference(b, b.model_copy(update={"tensors": {**b.tensors, "b.noise": halves}}))
    assert found.unknown == ("b.noise",), "cut differently: hashes cannot tell"
    assert json.dumps(found.tensors) == "{}"
    assert RunStore(store.location).valid()
