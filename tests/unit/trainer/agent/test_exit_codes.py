"""What the termination record says of the rank that failed: rules by exit code and `aurl run` go by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurl_trainer.agent.blame import RankEnd, ending, rank_end
from aurl_trainer.contract import Cause, ExitCode, RankFailure


def test_a_foreign_scripts_exit_code_reaches_the_record() -> None:
    end = ending(Cause.CRASH, "boom", RankEnd(0, 3, 0.0))
    assert (end.code, end.record().exit_code) == (ExitCode.CRASH, 3)


def test_without_a_rank_the_record_has_the_agents_own_code() -> None:
    assert ending(Cause.PREEMPTED, "told to leave").record().exit_code == ExitCode.PREEMPTED


def test_a_signal_is_no_exit_code() -> None:
    assert ending(Cause.CRASH, "boom", RankEnd(0, -11, 0.0)).record().exit_code == ExitCode.CRASH


def test_what_an_error_asks_for_goes_before_the_ranks_code(tmp_path: Path) -> None:
    failure = RankFailure(Cause.FINAL_ERROR, "no MIDI files", "", 0.0, 1, exit_code=ExitCode.DATA)
    (tmp_path / "error.aurl").write_text(failure.to_json())
    end = rank_end(1, int(ExitCode.FINAL), str(tmp_path / "error"), str(tmp_path / "stderr"))
    found = ending(Cause.FINAL_ERROR, end.message, end)
    assert (found.code, found.record().exit_code) == (ExitCode.FINAL, ExitCode.DATA)


@pytest.mark.parametrize("code", [1, 42])
def test_a_rank_without_a_record_is_known_by_its_code(tmp_path: Path, code: int) -> None:
    end = rank_end(0, code, str(tmp_path / "error"), str(tmp_path / "stderr"))
    assert ending(Cause.CRASH, "x", end).record().exit_code == code
