"""Removing a run that is over, or all but its best checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurl_trainer.store.format.sealed import unseal
from aurl_trainer.store.location.place import Location
from aurl_trainer.store.retention.removal import all_but_best, everything
from aurl_trainer.store.run_store import RunStore
from aurl_trainer.store.tags import set_tag
from aurl_trainer.store.verify import verify
from tests.unit.trainer.store.made import RUN, flip, open_run, save

BY = {"val_nll": 1.0}


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "file" else f"memory:/{tmp_path}/run"


def test_everything_goes_and_nothing_beside_it(uri: str) -> None:
    neighbour, other = open_run(f"{uri}-neighbour")
    save(neighbour, other.id, 1, 10)
    store, claim = open_run(uri)
    save(store, claim.id, 1, 10)
    for name in (
        "records/gen-1.jsonl",
        "logs/worker-0-0.log",
        "samples/deep/er/a.mid",
        "index/checkpoints.json",
    ):
        store.location.put(name, b"x")
    set_tag(store, "prod", store.valid()[0])
    everything(Location(uri), RUN)
    fresh = RunStore(Location(uri))
    assert fresh.location.names("") == [], "something of the run was left"
    assert fresh.committed() == []
    assert fresh.pack_folders() == []
    assert fresh.location.names("samples/deep/er") == []
    assert len(RunStore(Location(f"{uri}-neighbour")).valid()) == 1, "a neighbour was touched"
    everything(Location(uri), RUN)


def test_the_best_stay_and_verify(uri: str) -> None:
    store, claim = open_run(uri)
    for number, nll in enumerate((0.5, 0.2, 0.9, 0.4), start=1):
        save(store, claim.id, number, 10 * number, nll)
    left = all_but_best(Location(uri), RUN, 2, BY)
    assert [name.step for name in left] == [20, 40], f"expected steps 20 and 40, found {left}"
    fresh = RunStore(Location(uri))
    assert fresh.valid() == left
    assert len(fresh.pack_folders()) == 2
    for name in left:
        assert verify(fresh, name).good, f"expected {name} to verify"


def test_by_other_metrics_and_tags_stay(uri: str) -> None:
    store, claim = open_run(uri)
    for number, nll in enumerate((0.5, 0.2, 0.9, 0.4), start=1):
        save(store, claim.id, number, 10 * number, nll)
    set_tag(store, "prod", store.valid()[0])
    left = all_but_best(Location(uri), RUN, 1, {"val_nll": -1.0})
    assert [name.step for name in left] == [10, 30], "the tagged one, and the one with the greatest"
    assert RunStore(Location(uri)).valid() == left


def test_a_tag_that_comes_while_the_best_are_read_keeps_its_checkpoint(uri: str) -> None:
    store, claim = open_run(uri)
    saved = [save(store, claim.id, n, 10 * n, 1.0 / n).checkpoint for n in (1, 2, 3)]
    location = Location(uri)
    put, told = location.put, []

    def tag_first(name: str, data: bytes) -> None:
        if name.startswith("removals/"):  # it has looked at the tags, and is about to announce
            set_tag(RunStore(Location(uri)), "prod", saved[0])
            told.append(frozenset(unseal(data, name)["names"]))
        put(name, data)

    location.put = tag_first  # type: ignore[method-assign]
    left = all_but_best(location, RUN, 1, BY)
    assert told == [frozenset(map(str, saved[:2]))], "a tag set later would not know what goes"
    assert left == [saved[0], saved[2]] == RunStore(Location(uri)).valid()
    assert all(verify(store, name).good for name in left), "what was tagged has lost its packs"
    assert location.names("removals") == []


def test_one_of_the_best_that_is_damaged_gives_way_to_the_next(uri: str) -> None:
    store, claim = open_run(uri)
    saved = [
        save(store, claim.id, number, 10 * number, nll).checkpoint
        for number, nll in enumerate((0.5, 0.2, 0.9, 0.4), start=1)
    ]
    flip(store.location, saved[1].pack(0))
    left = all_but_best(Location(uri), RUN, 2, BY)
    assert [name.step for name in left] == [10, 40], "step 20 is the best, and cannot be loaded"
    assert all(verify(store, name).good for name in left)


@pytest.mark.parametrize(
    ("rated", "damaged", "count", "left"),
    [
        ({40: 0.4}, [40], 1, [30]),
        ({20: 0.2, 40: 0.4}, [20, 40], 1, [30]),
        ({20: 0.2, 40: 0.4}, [40], 2, [20, 30]),
        ({20: 0.2, 40: 0.4}, [], 3, [20, 40]),
    ],
)
def test_where_what_is_rated_is_damaged_the_newest_that_is_whole_stays(
    uri: str, rated: dict[int, float], damaged: list[int], count: int, left: list[int]
) -> None:
    """Most saves lie between two evaluations, and are of no rating."""
    store, claim = open_run(uri)
    for number in (1, 2, 3, 4):
        made = save(store, claim.id, number, 10 * number, rated.get(10 * number))
        if 10 * number in damaged:
            flip(store.location, made.checkpoint.pack(0))
    stay = all_but_best(Location(uri), RUN, count, BY)
    assert [name.step for name in stay] == left
    assert RunStore(Location(uri)).valid() == stay


def test_if_none_is_whole_the_best_stay_for_whoever_can_mend_them(uri: str) -> None:
    store, claim = open_run(uri)
    for number, nll in enumerate((0.5, 0.2), start=1):
        flip(store.location, save(store, claim.id, number, 10 * number, nll).checkpoint.pack(0))
    assert [name.step for name in all_but_best(Location(uri), RUN, 1, BY)] == [20]


def test_without_a_metric_the_newest_stays(uri: str) -> None:
    store, claim = open_run(uri)
    for number in (1, 2, 3):
        save(store, claim.id, number, 10 * number)
    assert [name.step for name in all_but_best(Location(uri), RUN, 1, BY)] == [30]


def test_nothing_there_is_nothing_to_do(uri: str) -> None:
    assert all_but_best(Location(uri), RUN, 1, BY) == []
