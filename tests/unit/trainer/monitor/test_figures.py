"""What a report computes: which steps count, what was lost, who was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurl_trainer.errors import MissingError
from aurl_trainer.monitor.report.figures import Figures, figures
from aurl_trainer.monitor.report.lineage import generations
from aurl_trainer.monitor.report.source import read_run
from tests.unit.trainer.monitor.runs import RunDirectory, rehearsed


def steps(facts: Figures, part: str) -> list[list[int]]:
    return [[r["step"] for r in getattr(g, part)] for g in facts.lineage]


def test_only_the_surviving_lineage_counts(tmp_path: Path) -> None:
    facts = figures(read_run(rehearsed(tmp_path).folder))
    assert steps(facts, "kept") == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert steps(facts, "redone") == [[5, 6], [], []]
    assert facts.step == facts.total_steps == 10
    assert facts.tokens == 1000, "tokens of steps done twice must count once"


def test_steps_done_again_are_compared_with_the_first_time(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.start()
    run.steps(1, 4)
    run.start(resumed_from=2)
    run.steps(3, 3)
    run.steps(4, 4, loss=1.0000001)
    facts = figures(read_run(tmp_path))
    assert facts.steps_redone == 2 and facts.steps_repeated == 1, "step 4 had another loss"


def test_a_generation_that_fell_far_back_voids_several_before_it(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.start()
    run.steps(1, 4)
    run.start(resumed_from=4)
    run.steps(5, 8)
    run.start(resumed_from=2)
    run.start(resumed_from=2)
    run.steps(3, 3)
    facts = figures(read_run(tmp_path))
    assert steps(facts, "kept") == [[1, 2], [], [], [3]]
    assert steps(facts, "redone") == [[3, 4], [5, 6, 7, 8], [], []]
    assert facts.step == 3


def test_a_generation_that_starts_afresh_voids_everything(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.start()
    run.steps(1, 4)
    run.start(resumed_from=None)
    assert steps(figures(read_run(tmp_path)), "kept") == [[], []]


def test_goodput_adds_up(tmp_path: Path) -> None:
    facts = figures(read_run(rehearsed(tmp_path).folder))
    good = facts.goodput
    assert good.total_seconds == pytest.approx(21.0), "from the first readiness to the last record"
    assert good.productive_seconds == pytest.approx(10.0)
    assert good.ratio == pytest.approx(10 / 21)
    shares = {s.name: s.seconds for s in good.shares}
    assert shares["first start"] == pytest.approx(2.0)
    assert shares["node-lost"] == pytest.approx(6.0)
    assert shares["preempted"] == pytest.approx(3.0)
    assert "regrouped" not in shares, "an incident explains each gap"
    assert sum(shares.values()) == pytest.approx(good.total_seconds)
    assert good.lost_seconds == pytest.approx(9.0)


def test_a_gap_without_an_incident_is_a_change_of_the_world(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.start(world=1)
    run.steps(1, 5)
    run.now += 3
    run.start(resumed_from=5)
    run.steps(6, 10)
    shares = {s.name: s.seconds for s in figures(read_run(tmp_path)).goodput.shares}
    assert shares == {"steps in the result": pytest.approx(10.0), "regrouped": pytest.approx(3.0)}


def test_losses_that_were_booked_too_high_do_not_exceed_the_time_there_was(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.start()
    run.steps(1, 5)
    run.ledger("incident", "x", cause="crash", nodes=["worker-0-0"])
    run.start(resumed_from=5)
    run.steps(6, 6)
    run.ledger("recovered", "x", lost_seconds=1000.0)
    good = figures(read_run(tmp_path)).goodput
    assert sum(s.seconds for s in good.shares) == pytest.approx(good.total_seconds)


def test_attempts_come_from_the_ledger_with_their_ends(tmp_path: Path) -> None:
    facts = figures(read_run(rehearsed(tmp_path).folder))
    found = [(a.node, a.number, a.cause, a.ready is not None) for a in facts.attempts]
    assert found == [
        ("worker-0", 0, "preempted", True),
        ("worker-1", 0, "node-lost", True),
        ("worker-1", 1, "succeeded", True),
    ]
    assert facts.most_nodes == 2 and facts.most_ranks == 2


def test_a_replacement_that_came_early_makes_no_larger_world(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for name in ("worker-0-0", "worker-1-0", "worker-2-0"):
        run.node(name)
    run.start()
    assert figures(read_run(tmp_path)).most_nodes == 2


def test_the_store_is_no_node(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.node("store-0-0")
    run.node("worker-0-0")
    facts = figures(read_run(tmp_path))
    assert [a.node for a in facts.attempts] == ["worker-0", "store-0"]
    assert facts.most_nodes == 1


def test_without_a_ledger_records_tell_who_was_there(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.start()
    run.steps(1, 2)
    run.record("end", step=2, reason="finished")
    facts = figures(read_run(tmp_path))
    assert [(a.node, a.start, a.end) for a in facts.attempts] == [
        ("worker-0", run.now - 2, run.now),
        ("worker-1", run.now - 2, run.now),
    ]
    assert facts.phase == "Succeeded"


def test_incidents_carry_their_recovery(tmp_path: Path) -> None:
    facts = figures(read_run(rehearsed(tmp_path).folder))
    lost, notice = facts.incidents
    assert (lost.cause, lost.nodes, lost.recovery_seconds, lost.steps_redone) == (
        "node-lost",
        ("worker-1",),
        5.0,
        2,
    )
    assert notice.recovery_seconds == 4.0
    assert facts.slowest_recovery == 5.0
    assert facts.val_loss == 0.7 and facts.best_val_loss == 0.75


def test_an_evaluation_of_a_step_done_again_does_not_count(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.start()
    run.steps(1, 4)
    run.record("evaluation", step=4, val_loss=0.1, tokens=1, seconds=0.0)
    run.start(resumed_from=2)
    run.steps(3, 3)
    assert figures(read_run(tmp_path)).best_val_loss is None


def test_a_run_that_never_got_to_train(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.ledger("phase", phase="Failed", message="no data")
    facts = figures(read_run(tmp_path))
    assert facts.phase == "Failed" and facts.message == "no data"
    assert facts.goodput.ratio is None and facts.step == 0
    assert generations(read_run(tmp_path)) == ()


def test_damaged_ledger_lines_are_skipped(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.ledger("incident", "a", cause="crash")
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"v": 99, "kind": "incident"}\n{"v":1,"ki')
    assert len(figures(read_run(tmp_path)).incidents) == 1


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such run directory"):
        read_run(tmp_path / "none")
    with pytest.raises(MissingError, match="not a run directory"):
        read_run(tmp_path)
