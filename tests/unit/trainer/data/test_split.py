"""What is used and what is held out, decided by names alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurl_trainer.config.data import SplitConfig
from aurl_trainer.data.source.listing import Listing, Source
from aurl_trainer.data.split import check_labels, choose, group, held_out
from aurl_trainer.errors import DataError

names = st.lists(st.text(min_size=1), min_size=3, max_size=60, unique=True)
seeds = st.integers(0, 1000)


def listing(*sources: Source, labelled: tuple[str, ...] = ()) -> Listing:
    return Listing(tuple(sources), "digest", frozenset(labelled))


@given(names=names, share=st.floats(0.01, 0.49), seed=seeds)
def test_the_share_of_groups_is_held_out_and_something_is_left(
    names: list[str], share: float, seed: int
) -> None:
    config = SplitConfig(validation=share)
    out = held_out(names, config, seed)
    assert out < set(names) and out, "neither split may be empty"
    assert len(out) == max(1, round(share * len(names)))
    assert held_out(list(reversed(names)) * 2, config, seed) == out, "neither order nor repeats matter"


@given(names=names, seed=seeds)
def test_one_more_group_moves_at_most_one_other(names: list[str], seed: int) -> None:
    config = SplitConfig(validation=0.2)
    before, after = held_out(names[1:], config, seed), held_out(names, config, seed)
    assert len((before ^ after) - {names[0]}) <= 1


@given(names=names, limit=st.integers(1, 70), seed=seeds)
def test_limit_takes_so_many_by_the_seed(names: list[str], limit: int, seed: int) -> None:
    sources = [Source(n, n) for n in sorted(names)]
    chosen = choose(listing(*sources), limit, seed)
    assert len(chosen) == min(limit, len(names))
    assert list(chosen) == [s for s in sources if s in chosen], "in the order of the listing"
    more = choose(listing(*sources), limit + 1, seed)
    assert {s.name for s in more} >= {s.name for s in chosen}, "a larger limit only adds"


def test_another_seed_draws_others() -> None:
    sources = [Source(str(i), str(i)) for i in range(40)]
    assert choose(listing(*sources), 10, 1) != choose(listing(*sources), 10, 2)
    assert held_out([s.name for s in sources], SplitConfig(), 1) != held_out(
        [s.name for s in sources], SplitConfig(), 2
    )


def test_groups_follow_labels() -> None:
    by_set, by_composer = SplitConfig(by="set"), SplitConfig(by="composer")
    bach = Source("a.mid", "a", labels={"composer": "Bach", "set": "Book 1"})
    other = Source("b.mid", "b", labels={"composer": "Other", "set": "Book 1"})
    alone = Source("c.mid", "c", labels={"composer": "Bach"})
    unlisted = Source("d.mid", "d", labels=None)
    assert group(bach, SplitConfig()) == "a.mid"
    assert group(bach, by_set) != group(other, by_set), "sets of two composers may have one title"
    assert group(alone, by_set) == "c.mid", "a piece of no set stands alone"
    assert group(alone, by_composer) == group(bach, by_composer)
    assert group(unlisted, by_set) is None and group(unlisted, by_composer) is None
    assert group(Source("e.mid", "e", labels={"set": "x"}), by_composer) is None


@pytest.mark.parametrize(("groups", "message"), [([], "left to split"), (["a", "a"], "left to train on")])
def test_nothing_left_after_the_split(groups: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"nothing is {message}: there is .* composer"):
        held_out(groups, SplitConfig(by="composer"), 1)


def test_a_split_by_a_label_that_nobody_has() -> None:
    check_labels(listing(labelled=("set",)), SplitConfig(by="set"))
    check_labels(listing(), SplitConfig(by="piece"))
    with pytest.raises(DataError, match=r"data\.split\.by is composer, but no piece has a label 'composer'"):
        check_labels(listing(labelled=("set",)), SplitConfig(by="composer"))
