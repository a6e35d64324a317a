"""When two records of one step agree, and what that is called."""

from __future__ import annotations

from typing import Any

import pytest

from aurl_trainer.engine.exact.platform import KERNELS, PROCESSORS
from aurl_trainer.engine.resume.certificate import Done, Verdict, judge

HERE = {"PyTorch": "2.13.0", "CPU threads a rank": "1", KERNELS: "AVX512 (1)", PROCESSORS: "one (1)"}
NEXT_UP = 2.0000000000000004
"""The float after 2.0."""


def done(step: int = 5, loss: float | None = 2.0, **others: Any) -> Done:
    fields = {"samples": "8:1:2", "world": 2, "surroundings": HERE, "generation": 1, **others}
    return Done(step, loss, **fields)


def verdict(before: Done, again: Done, **how: Any) -> Verdict:
    rules = {"writer": 1, "exact": False, "deterministic": True, "weights": None, **how}
    return judge({before.step: before}, [again], **rules).verdict


def test_the_same_world_must_give_the_same_bits() -> None:
    assert verdict(done(), done()) is Verdict.EQUAL
    assert verdict(done(), done(loss=NEXT_UP)) is Verdict.DIFFERS


@pytest.mark.parametrize(
    "before",
    [
        done(world=3),
        done(surroundings=HERE | {"PyTorch": "2.12.0"}),
        done(surroundings=HERE | {KERNELS: "AVX2 (1)"}),
        done(surroundings=HERE | {PROCESSORS: "another (1)"}),
        done(surroundings={k: v for k, v in HERE.items() if k not in (KERNELS, PROCESSORS)}),
        done(surroundings={}),
    ],
    ids=["another world", "version", "instruction set", "model of CPU", "an older record", "no record"],
)
def test_where_sums_have_another_order_losses_may_differ_by_rounding(before: Done) -> None:
    assert verdict(before, done(loss=NEXT_UP)) is Verdict.CLOSE
    assert verdict(before, done(loss=2.0009)) is Verdict.CLOSE
    assert verdict(before, done(loss=2.0011)) is Verdict.DIFFERS
    assert verdict(before, done()) is Verdict.EQUAL, "equal bits are said to be equal, asked for or not"


@pytest.mark.parametrize(
    ("writer", "first"), [(2, 1), (1, 3)], ids=["the checkpoint's way", "the earlier step's way"]
)
def test_a_world_of_another_size_in_between_excuses_the_bits(writer: int, first: int) -> None:
    def found(world: int, **rules: bool) -> Verdict:
        past = {4: done(4, world=world, generation=2), 5: done(generation=first)}
        again = [done(loss=NEXT_UP, generation=4)]
        how = {"exact": False, "deterministic": True, "weights": None, **rules}
        return judge(past, again, writer=writer, **how).verdict  # type: ignore[arg-type]

    assert found(world=1) is Verdict.CLOSE
    assert found(world=2) is Verdict.DIFFERS, "all were of one size: nothing excuses a bit"
    assert found(world=1, exact=True) is Verdict.DIFFERS


def test_exact_runs_must_give_the_same_bits_at_any_world_size() -> None:
    assert verdict(done(world=3), done(loss=NEXT_UP), exact=True) is Verdict.DIFFERS
    assert verdict(done(world=3), done(), exact=True) is Verdict.EQUAL
    other = done(surroundings=HERE | {PROCESSORS: "another (1)"})
    assert verdict(other, done(loss=NEXT_UP), exact=True) is Verdict.DIFFERS, "of that they are only warned"
    for around in (HERE | {KERNELS: "AVX2 (1)"}, {"PyTorch": "2.13.0"}, {PROCESSORS: "one (1)"}):
        assert verdict(done(surroundings=around), done(loss=NEXT_UP), exact=True) is Verdict.CLOSE


def test_kernels_that_are_not_deterministic_are_held_to_no_bit() -> None:
    assert verdict(done(), done(loss=NEXT_UP), deterministic=False) is Verdict.CLOSE


def test_other_samples_differ_even_at_the_same_loss() -> None:
    found = judge(
        {5: done()}, [done(samples="8:1:3")], writer=1, exact=False, deterministic=True, weights=None
    )
    assert found.verdict is Verdict.DIFFERS
    assert found.problems == ("step 5 used other samples than in generation 1",)
    assert verdict(done(samples=None), done()) is Verdict.EQUAL, "an older record names no samples"


def test_a_loss_that_is_not_finite_equals_only_another() -> None:
    assert verdict(done(loss=None), done(loss=None)) is Verdict.EQUAL
    assert verdict(done(loss=None, world=3), done()) is Verdict.DIFFERS


def test_without_a_step_done_twice_there_is_nothing_to_compare_but_the_weights() -> None:
    assert verdict(done(4), done(5)) is Verdict.NOTHING
    assert verdict(done(4), done(5), weights="w as loaded is not what v1 holds") is Verdict.DIFFERS
