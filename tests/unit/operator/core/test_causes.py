from __future__ import annotations

import pytest

from aurl_operator.api.recovery import ExitCodeRule
from aurl_operator.core.accounts.causes import conclude
from aurl_operator.core.observed import End, Role
from aurl_trainer.contract import Cause, ExitCode, Termination

CRASHED = Termination(Cause.CRASH, "KeyError: 'x'", 1, 0.0, rank=3)


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (End(0, exit_code=0), Cause.SUCCEEDED),
        (End(0, exit_code=1), Cause.CRASH),
        (End(0, exit_code=1, termination=CRASHED), Cause.CRASH),
        (End(0, signal=11), Cause.CRASH),
        (End(0, exit_code=139), Cause.CRASH),
        (End(0, signal=9), Cause.NODE_LOST),
        (End(0, exit_code=137), Cause.NODE_LOST),
        (End(0), Cause.NODE_LOST),
        (End(0, signal=15), Cause.PREEMPTED),
        (End(0, exit_code=143), Cause.PREEMPTED),
        (End(0, exit_code=ExitCode.PREEMPTED), Cause.PREEMPTED),
        (End(0, exit_code=ExitCode.HANG), Cause.HANG),
        (End(0, exit_code=ExitCode.OUT_OF_MEMORY), Cause.OUT_OF_MEMORY),
        (End(0, exit_code=ExitCode.STORE_LOST), Cause.STORE_LOST),
        (End(0, exit_code=ExitCode.FINAL), Cause.FINAL_ERROR),
        (End(0, exit_code=137, oom_killed=True), Cause.OUT_OF_MEMORY),
        (End(0, exit_code=1, termination=CRASHED, disrupted=True), Cause.PREEMPTED),
        (End(0, exit_code=1, termination=CRASHED, node_lost=True), Cause.NODE_LOST),
        (End(0, exit_code=1, termination=CRASHED, deleted=True), Cause.DELETED),
        (End(0, exit_code=128, final=True, message="no such program"), Cause.FINAL_ERROR),
    ],
)
def test_causes_are_told_apart(end: End, cause: Cause) -> None:
    assert conclude(end, Role.NODE, [], stopped=False, noticed=False).cause is cause


def test_a_kill_after_a_notice_is_a_preemption() -> None:
    found = conclude(End(0, signal=9), Role.NODE, [], stopped=False, noticed=True)
    assert found.cause is Cause.PREEMPTED


@pytest.mark.parametrize("end", [End(0, exit_code=1), End(0, signal=9), End(0, exit_code=86)])
def test_what_we_stopped_is_stopped_whatever_it_says(end: End) -> None:
    assert conclude(end, Role.NODE, [], stopped=True, noticed=False).cause is Cause.STOPPED


def test_a_good_end_is_good_even_when_we_asked_for_it() -> None:
    found = conclude(End(0, exit_code=0), Role.NODE, [], stopped=True, noticed=True)
    assert found.cause is Cause.SUCCEEDED


@pytest.mark.parametrize(
    "end", [End(0, exit_code=0), End(0, exit_code=1), End(0, exit_code=137, oom_killed=True)]
)
def test_a_store_that_ends_by_itself_is_lost(end: End) -> None:
    assert conclude(end, Role.STORE, [], stopped=False, noticed=False).cause is Cause.STORE_LOST


@pytest.mark.parametrize(
    ("end", "cause"), [(End(0, signal=9), Cause.NODE_LOST), (End(0, disrupted=True), Cause.PREEMPTED)]
)
def test_a_store_whose_machine_goes_is_a_loss_of_that_kind(end: End, cause: Cause) -> None:
    assert conclude(end, Role.STORE, [], stopped=False, noticed=False).cause is cause


def test_rules_go_by_the_failing_ranks_exit_code_and_never_overrule_the_machines() -> None:
    rules = [ExitCodeRule(exitCodes=[7], cause="Preempted")]
    record = Termination(Cause.CRASH, "exit code 7", 7, 0.0, rank=0)
    found = conclude(End(0, exit_code=1, termination=record), Role.NODE, rules, stopped=False, noticed=False)
    assert found.cause is Cause.PREEMPTED
    lost = End(0, exit_code=1, termination=record, node_lost=True)
    assert conclude(lost, Role.NODE, rules, stopped=False, noticed=False).cause is Cause.NODE_LOST


@pytest.mark.parametrize("code", [0, 1, 85])
def test_a_store_that_we_stopped_is_stopped_whatever_its_code(code: int) -> None:
    found = conclude(End(1.0, exit_code=code), Role.STORE, (), stopped=True, noticed=False)
    assert found.cause is Cause.STOPPED
