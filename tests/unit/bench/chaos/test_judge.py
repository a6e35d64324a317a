"""The comparison: equal runs are equal, and nothing that differs is passed over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aurl_trainer.contract import Cause, LedgerEntry
from bench.chaos.judge import SHOWN, Result, differences, noticed, traced


def start(generation: int, world: int = 2) -> dict[str, Any]:
    return {"kind": "start", "generation": generation, "rank": 0, "world": world}


def audit(step: int, generation: int, rank: int, ids: list[int], loss: float = 0.5) -> dict[str, Any]:
    return {"kind": "audit", "step": step, "generation": generation, "rank": rank, "ids": ids, "loss": loss}


def evaluation(step: int, generation: int, value: float) -> dict[str, Any]:
    return {"kind": "evaluation", "step": step, "generation": generation, "rank": 0, "val_loss": value}


CALM = [
    start(1), audit(1, 1, 0, [1, 2]), audit(1, 1, 1, [3]), audit(2, 1, 0, [4]), audit(2, 1, 1, [5, 6], 0.5),
    evaluation(2, 1, 1.5),
]  # fmt: skip
RESULT = Result("v1", {"model.a": "aa", "optimizer.a": "bb"})


def lines(records: list[dict[str, Any]], result: Result = RESULT) -> list[str]:
    return differences((traced(CALM), RESULT), (traced(records), result))


def test_a_run_that_did_a_step_twice_and_over_other_worlds_is_equal() -> None:
    again = [start(2, world=1), audit(2, 2, 0, [6, 5, 4]), evaluation(2, 2, 1.5)]
    assert lines([*CALM, *again]) == []
    assert traced([*CALM, *again]).worlds == {1: 2, 2: 1}


def test_a_step_cut_short_counts_as_far_as_it_was_told() -> None:
    assert lines([*CALM, start(2), audit(2, 2, 1, [5, 6])]) == []
    assert len(lines([*CALM, start(2), audit(2, 2, 1, [5, 7])])) == 1, "another sample"
    assert len(lines([*CALM, start(2), audit(2, 2, 1, [5, 6], 0.25)])) == 1, "another loss"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (audit(2, 1, 0, [9]), "samples of step 2: [5, 6, 9] instead of [4, 5, 6]"),
        (evaluation(2, 1, 1.25), "validation of step 2: 1.25 instead of 1.5"),
    ],
)
def test_what_differs_from_the_undisturbed_run_is_named(changed: dict[str, Any], expected: str) -> None:
    same = [r for r in CALM if (r["kind"], r.get("step"), r["rank"]) != (changed["kind"], 2, 0)]
    assert lines([*same, changed]) == [expected]


def test_a_last_bit_of_the_loss_is_a_difference() -> None:
    other = 0.5000000000000001
    changed = [{**r, "loss": other} if r.get("step") == 1 and "loss" in r else r for r in CALM]
    assert lines(changed) == [f"loss of step 1: {other} instead of 0.5"]


def test_ranks_and_generations_that_disagree_are_told() -> None:
    told = lines([*CALM, start(2), audit(2, 2, 0, [4], 0.5), audit(2, 2, 1, [5, 6], 0.25)])
    assert any("ranks of generation 2 differ" in line for line in told), told
    told = lines([*CALM, start(2), audit(2, 2, 0, [4]), audit(2, 2, 1, [5, 7])])
    assert any("generation 2 differs from an earlier one" in line for line in told), told
    told = lines([*CALM, start(2), evaluation(2, 2, 1.25)])
    assert any("validation is 1.25 in generation 2, 1.5 before" in line for line in told), told


def test_missing_steps_and_tensors_are_differences_and_many_are_counted() -> None:
    assert len(lines([start(1), *CALM[1:3], CALM[5]])) == 2, "step 2: its samples and its loss"
    assert lines(CALM, replace(RESULT, tensors={"model.a": "aa"})) == [
        "final tensor optimizer.a: None instead of bb"
    ]
    many = Result("v1", {f"model.{i}": "x" for i in range(SHOWN + 3)})
    assert lines(CALM, many)[-1] == f"final tensor: {3 + 2} more differ"


def test_incidents_that_no_kill_may_cause_are_differences() -> None:
    entries = [
        LedgerEntry(kind="incident", at=1.0, id=cause, cause=cause, message="m")
        for cause in (Cause.CRASH, Cause.SAVE_FAILED, Cause.RESUME_MISMATCH, Cause.CHECKPOINT_DAMAGED)
    ]
    assert noticed(entries) == ["resume-mismatch: m", "checkpoint-damaged: m"]


def test_one_digest_stands_for_all_tensors() -> None:
    assert RESULT.digest == Result("v2", dict(reversed(RESULT.tensors.items()))).digest
    assert RESULT.digest != Result("v1", {**RESULT.tensors, "model.a": "ab"}).digest
