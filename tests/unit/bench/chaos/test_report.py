"""What is told of a campaign."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from bench.chaos.campaign import Struck
from bench.chaos.plan import Mode, Victim
from bench.chaos.report import Judged, figures, last_line, page, table
from bench.chaos.stages import Stage


def struck(
    number: int, seconds: float | None = 2.0, found: Stage = Stage.STEP, again: int | None = None
) -> Struck:
    return Struck(
        run=1, number=number, aimed=Stage.STEP, found=found, victim=Victim.RANK, pids=(1,), at=100.0 + number,
        took=0.3, generation=1, step=number, furthest=number, world=2, seconds=seconds, again=again,
    )  # fmt: skip


def run(*kills: Struck, differences: tuple[str, ...] = ()) -> Judged:
    return Judged(
        mode=Mode.EXACT, number=1, seed=1001, struck=kills, differences=differences, worlds=(1, 1, 2, 1),
        digest="abc", seconds=60.0, calm_seconds=20.0,
    )  # fmt: skip


def test_the_last_line_says_how_many_were_done() -> None:
    done = [run(struck(1), struck(2))]
    assert last_line(done, 2) == "2 kills, 0 differences"
    assert last_line(done, 5) == "2 kills, 0 differences (3 of 5 not done)"
    assert last_line([run(struck(1), differences=("loss of step 3",))], 1) == "1 kills, 1 differences"


def test_figures_count_by_the_stage_that_was_found() -> None:
    found = figures([run(struck(1), struck(2, None, Stage.LOAD), struck(3, 4.0), differences=("x",))], 3)
    assert found["stages"] == {"step": 2, "load": 1}
    assert found["as_aimed"] == 2
    assert found["seconds_to_next_new_step"]["median"] == 3.0
    assert found["differences"] == ["exact run 1: x"]
    assert found["runs"][0]["worlds"] == [1, 2, 1]


def test_the_page_shows_every_kill_and_escapes_what_it_was_told() -> None:
    text = page([run(struck(1), struck(2), differences=("<b>",))], 2)
    assert text.count("<circle") == 2
    assert "&lt;b&gt;" in text and "<li><b>" not in text


def test_a_campaign_without_a_kill_can_be_told() -> None:
    assert figures([], 3)["seconds_to_next_new_step"] is None
    assert "0 kills" in page([run()], 3)


def test_the_steps_done_again_are_told_of_the_kills_that_ended_a_generation() -> None:
    kills = [struck(1, again=3), struck(2, again=8, found=Stage.LOAD), struck(3, again=4), struck(4)]
    assert figures([run(*kills)], 4)["steps_done_again"] == {"median": 4, "most": 8, "kills": 3}
    text = StringIO()
    Console(width=110, file=text).print(table([run(*kills)]))
    rows = [line.split("│") for line in text.getvalue().splitlines() if "│" in line]
    told = {row[1].strip(): [cell.strip() for cell in row[-3:-1]] for row in rows}
    assert told["step"] == ["3.5", "4"] and told["load"] == ["8", "8"] and told["all"] == ["4", "8"], told
    assert figures([run(struck(1))], 1)["steps_done_again"] is None
