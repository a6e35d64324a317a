"""What a report says of resumes, and of what ranks noticed without a loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aurl_trainer.monitor.report.figures import figures
from aurl_trainer.monitor.report.page.render import render
from aurl_trainer.monitor.report.source import read_run
from tests.unit.trainer.monitor.runs import RunDirectory, rehearsed

DIGEST = "sha256:" + 64 * "a"


def resume(
    run: RunDirectory,
    step: int,
    verdict: str | None = None,
    digests: dict[str, Any] | None = None,
    **certificate: Any,
) -> None:
    name = f"v000001-s{step:08}-g000001-00000000"
    digests = {"manifest": DIGEST, "weights": DIGEST, "weights_match": True, **(digests or {})}
    nearby = {"disk_bytes": 3_000_000, "peer_bytes": 2_000_000, "saved_seconds": 4.0}
    run.record("resume", step=step, checkpoint=name, seconds=1.5, **digests, **nearby)
    if verdict is not None:
        run.record("certificate", step=step, verdict=verdict, **{"steps_redone": 2, **certificate})


def compared(step: int, before: float, again: float, samples: bool = True) -> dict[str, Any]:
    same = {"samples": samples, "bitwise": True, "generation": 1, "world": 2}
    return {"step": step, "before": before, "loss": again, **same}


def made(folder: Path) -> RunDirectory:
    """Three generations: the second came out as the first, the third did not, a fourth was lost at once."""
    run = rehearsed(folder)
    resume(run, 4, "equal", compared=[compared(5, 1.0, 1.0), compared(6, 0.1 + 0.2, 0.1 + 0.2)])
    run.start(resumed_from=8)
    problems = ["step 9 used other samples than in generation 2"]
    resume(run, 8, "differs", compared=[compared(9, 0.3, 0.30000000000000004, False)], problems=problems)
    run.record("noted", id="resume-mismatch/4", cause="resume-mismatch", message=problems[0], step=8)
    run.start(resumed_from=8)
    resume(run, 8)
    return run


def test_the_figures_hold_every_certificate(tmp_path: Path) -> None:
    found = figures(read_run(made(tmp_path).folder)).to_json()["resumes"]
    assert [r["verdict"] for r in found] == ["equal", "differs", "not judged"]
    assert found[0]["steps_redone"] == 2 and found[0]["manifest"] == DIGEST
    assert [c["step"] for c in found[0]["compared"]] == [5, 6]
    assert found[2]["compared"] == [] and found[2]["steps_redone"] is None


def test_the_page_says_what_a_person_wants_to_know(tmp_path: Path) -> None:
    read = read_run(made(tmp_path).folder)
    page = render(read, figures(read), [])
    assert '<a href="#resumes">Resumes</a>' in page
    for text in (
        "the same to the last bit",
        "differs",
        "not judged: lost before",
        "step 9 used other samples than in generation 2",
        "2.0 MB from peers and 3.0 MB from own disks; about 4.0 s saved",
        "0.30000000000000004",
        "<td>the last bit</td>",
        "<td>differs</td>",
        DIGEST,
    ):
        assert text in page, f"expected {text!r} on the page"
    assert page.count('<details class="certificate" open') == 1, "only what differs is unfolded"


def test_of_sharded_weights_the_page_says_why_there_is_no_digest(tmp_path: Path) -> None:
    run = rehearsed(tmp_path)
    resume(run, 4, "equal", digests={"weights": None, "weights_match": None})
    read = read_run(run.folder)
    page = render(read, figures(read), [])
    assert "no digest: the model is sharded, so no rank holds all of them" in page


def test_what_no_ledger_has_is_an_incident_of_the_report_and_no_loss(tmp_path: Path) -> None:
    calm = figures(read_run(rehearsed(tmp_path / "calm").folder))
    read = read_run(made(tmp_path / "made").folder)
    facts = figures(read)
    (noticed,) = [i for i in facts.incidents if i.noticed]
    assert (noticed.cause, noticed.step, noticed.lost_seconds) == ("resume-mismatch", 8, None)
    assert len(facts.incidents) == len(calm.incidents) + 1
    page = render(read, facts, [])
    assert "Noticed without a loss: resume that differs." in page
    assert '<div class="lane-name">checkpoints</div>' in page
    assert "cause-resume-mismatch" in page


def test_what_the_ledger_has_booked_is_not_counted_twice(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.ledger("incident", "noted/resume-mismatch/4", cause="resume-mismatch", message="m", step=8)
    facts = figures(read_run(tmp_path))
    assert len([i for i in facts.incidents if i.noticed]) == 1


def test_a_run_that_never_resumed_has_no_such_section(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.start()
    run.steps(1, 3)
    read = read_run(tmp_path)
    assert "Resumes" not in render(read, figures(read), [])
