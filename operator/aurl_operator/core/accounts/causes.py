"""From the facts of an end to its cause. The one place where causes are told apart.

What the machines say comes first (preempted, lost, deleted, out of memory), then the job's own rules by exit
code, then what the agent wrote, then the exit code, then the signal. Not here: what a cause costs
(policies/recovery.py).
"""

from __future__ import annotations

import signal as signals
from collections.abc import Sequence
from dataclasses import dataclass

from aurl_operator.api.recovery import ExitCodeRule
from aurl_operator.core.observed import End, Role
from aurl_trainer.contract import NOTICED, Cause, ExitCode

_BY_RULE = {
    "FinalError": Cause.FINAL_ERROR,
    "Crash": Cause.CRASH,
    "Preempted": Cause.PREEMPTED,
    "NodeLost": Cause.NODE_LOST,
    "OutOfMemory": Cause.OUT_OF_MEMORY,
    "Hang": Cause.HANG,
}

_BY_EXIT_CODE = {
    ExitCode.REJOIN: Cause.NODE_LOST,
    ExitCode.PREEMPTED: Cause.PREEMPTED,
    ExitCode.HANG: Cause.HANG,
    ExitCode.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
    ExitCode.STORE_LOST: Cause.STORE_LOST,
    ExitCode.FINAL: Cause.FINAL_ERROR,
}

_OF_MACHINES = (Cause.PREEMPTED, Cause.NODE_LOST, Cause.DELETED, Cause.STOPPED)


@dataclass(frozen=True)
class Conclusion:
    """Why a process ended, in one word and in one line."""

    cause: Cause
    message: str


def conclude(
    end: End, role: Role, rules: Sequence[ExitCodeRule], *, stopped: bool, noticed: bool
) -> Conclusion:
    """Why a process ended. `stopped`: we asked for it. `noticed`: its machine had announced that it will go.

    A store that ends by itself, in whatever way, is a store lost; one that was stopped may well exit 0.
    """
    if role is Role.STORE and stopped:
        return Conclusion(Cause.STOPPED, "stopped by Aurl")
    code, signal = _normal(end.exit_code, end.signal)
    if role is Role.STORE and (end.disrupted or end.node_lost or end.deleted):
        code = None  # it leaves well when it is told to; the machines know why it was told
    found = _of_node(end, rules, code, signal, stopped=stopped, noticed=noticed)
    if role is Role.STORE and found.cause not in _OF_MACHINES:
        return Conclusion(Cause.STORE_LOST, f"the rendezvous store ended: {found.message}")
    return found


def _of_node(
    end: End,
    rules: Sequence[ExitCodeRule],
    code: int | None,
    signal: int | None,
    *,
    stopped: bool,
    noticed: bool,
) -> Conclusion:
    words = end.termination.message if end.termination else end.message
    if code == ExitCode.OK:
        return Conclusion(Cause.SUCCEEDED, words or "finished")
    if stopped:
        return Conclusion(Cause.STOPPED, words or "stopped by Aurl")
    if end.final:
        return Conclusion(Cause.FINAL_ERROR, end.message or words or "cannot be started")
    if end.disrupted:
        return Conclusion(Cause.PREEMPTED, end.message or words or "preempted")
    if end.node_lost:
        return Conclusion(Cause.NODE_LOST, end.message or "the machine was lost")
    if end.deleted:
        return Conclusion(Cause.DELETED, end.message or "deleted by somebody else")
    if end.oom_killed:
        return Conclusion(Cause.OUT_OF_MEMORY, words or "killed: memory was exhausted")
    rank_code = end.termination.exit_code if end.termination else code
    for rule in rules:
        if rank_code in rule.exit_codes or code in rule.exit_codes:
            return Conclusion(_BY_RULE[rule.cause], rule.message or words or f"exit code {rank_code}")
    if end.termination is not None:
        cause = Cause(end.termination.cause)
        if cause not in (Cause.SUCCEEDED, Cause.STOPPED, *NOTICED):
            return Conclusion(cause, words)
    if code in _BY_EXIT_CODE:
        return Conclusion(_BY_EXIT_CODE[ExitCode(code)], words or f"exit code {code}")
    if noticed:
        return Conclusion(Cause.PREEMPTED, words or "gone after a notice")
    if signal == signals.SIGTERM:
        return Conclusion(Cause.PREEMPTED, words or "left on SIGTERM")
    if signal == signals.SIGKILL or (code is None and signal is None):
        return Conclusion(Cause.NODE_LOST, words or "gone without a word")
    how = f"signal {signals.Signals(signal).name}" if signal in _SIGNALS else f"exit code {code}"
    return Conclusion(Cause.CRASH, words or how)


_SIGNALS = {int(s) for s in signals.Signals}


def _normal(code: int | None, signal: int | None) -> tuple[int | None, int | None]:
    """Exit codes of 128 + n as signal n."""
    if signal is None and code is not None and code > 128 and code - 128 in _SIGNALS:
        return None, code - 128
    return code, signal
