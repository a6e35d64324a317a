"""What the end of a rank means, and what can be read from what it has left."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from aurl_trainer.agent.blame import Fault, RankEnd, blame, main_thread_stack, rank_end, to_blame
from aurl_trainer.agent.processes import oom_kills
from aurl_trainer.contract import Cause, ExitCode, RankFailure

GLOO = "RuntimeError: [gloo/transport/tcp/pair.cc:537] Connection closed by peer [127.0.0.1]:29"
BUG = "Traceback (most recent call last):\n  File 'x.py', line 1\nValueError: wrong"


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (RankEnd(0, ExitCode.REJOIN, 0.0), (Fault.WORLD, Cause.STOPPED)),
        (RankEnd(0, ExitCode.PREEMPTED, 0.0), (Fault.NOTICE, Cause.PREEMPTED)),
        (RankEnd(0, ExitCode.HANG, 0.0), (Fault.OWN, Cause.HANG)),
        (RankEnd(0, ExitCode.FINAL, 0.0), (Fault.OWN, Cause.FINAL_ERROR)),
        (RankEnd(0, ExitCode.STORE_LOST, 0.0), (Fault.OWN, Cause.STORE_LOST)),
        (RankEnd(0, 1, 0.0, BUG), (Fault.OWN, Cause.CRASH)),
        (RankEnd(0, 1, 0.0, GLOO), (Fault.PEER, Cause.CRASH)),
        (RankEnd(0, 1, 0.0, ""), (Fault.PEER, Cause.CRASH)),
        (RankEnd(0, 1, 0.0, GLOO, cause=Cause.CRASH), (Fault.OWN, Cause.CRASH)),
        (RankEnd(0, 1, 0.0, "torch.OutOfMemoryError: CUDA out of memory."), (Fault.OWN, Cause.OUT_OF_MEMORY)),
        (RankEnd(0, -signal.SIGSEGV, 0.0), (Fault.OWN, Cause.CRASH)),
        (RankEnd(0, -signal.SIGKILL, 0.0), (Fault.OWN, Cause.CRASH)),
        (RankEnd(0, -signal.SIGABRT, 0.0, "NCCL watchdog timeout"), (Fault.PEER, Cause.CRASH)),
    ],
)
def test_blame(end: RankEnd, expected: tuple[Fault, Cause]) -> None:
    assert blame(end) == expected


def test_a_kill_for_memory_is_told_from_any_other() -> None:
    assert blame(RankEnd(0, -signal.SIGKILL, 0.0), oom_killed=True) == (Fault.OWN, Cause.OUT_OF_MEMORY)
    assert blame(RankEnd(0, -signal.SIGSEGV, 0.0), oom_killed=True) == (Fault.OWN, Cause.CRASH)


def test_a_port_that_was_taken_meanwhile_is_nobodys_fault() -> None:
    text = "DistNetworkError: failed to listen. port: 40123, code: -98, name: EADDRINUSE"
    assert blame(RankEnd(0, 1, 0.0, text), master_port=40123)[0] is Fault.WORLD
    assert blame(RankEnd(0, 1, 0.0, text), master_port=40124)[0] is not Fault.WORLD, "the script's own port"


def test_the_first_own_fault_counts() -> None:
    def judged(rank: int, code: int, at: float, text: str) -> tuple[RankEnd, Fault, Cause]:
        end = RankEnd(rank, code, at, text)
        return (end, *blame(end))

    ends = [judged(0, 1, 5.0, GLOO), judged(1, 1, 8.0, BUG), judged(2, 1, 7.0, BUG), judged(3, 81, 1.0, "")]
    assert to_blame(ends)[0].rank == 2
    assert to_blame([judged(0, 1, 5.0, GLOO), judged(1, 1, 6.0, "")])[0].rank == 1


def test_our_own_record_is_read_first(tmp_path: Path) -> None:
    record = RankFailure(Cause.FINAL_ERROR, "no music", "tb", 12.0, 4, 9)
    (tmp_path / "error.json.aurl").write_text(record.to_json())
    end = rank_end(4, 86, str(tmp_path / "error.json"), str(tmp_path / "absent"))
    assert end == RankEnd(4, 86, 12.0, "tb", "no music", Cause.FINAL_ERROR, 9)


def test_torchs_error_file_is_read_next(tmp_path: Path) -> None:
    extra = {"py_callstack": BUG, "timestamp": "33"}
    left = {"message": {"message": "ValueError: wrong", "extraInfo": extra}}
    (tmp_path / "error.json").write_text(json.dumps(left))
    end = rank_end(1, 1, str(tmp_path / "error.json"), str(tmp_path / "absent"))
    assert (end.at, end.text, end.message) == (33.0, BUG, "ValueError: wrong")


@pytest.mark.parametrize("prefix", ["", "[rank1]: "])
def test_else_the_tail_of_stderr(tmp_path: Path, prefix: str) -> None:
    lines = "".join(f"{prefix}{line}\n" for line in BUG.splitlines())
    (tmp_path / "stderr").write_text("noise\n" * 10_000 + lines + "[W123 socket.cpp] noise\n")
    end = rank_end(1, 1, str(tmp_path / "absent"), str(tmp_path / "stderr"))
    assert end.text.startswith("Traceback")
    assert end.message == "ValueError: wrong"
    assert blame(end)[0] is Fault.OWN


def test_nothing_left_is_nothing_known(tmp_path: Path) -> None:
    end = rank_end(1, 1, str(tmp_path / "absent"), str(tmp_path / "absent"))
    assert (end.text, end.message, end.cause) == ("", "", None)


def test_damaged_records_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "error.json.aurl").write_text("{torn")
    (tmp_path / "error.json").write_text("[1]")
    (tmp_path / "stderr").write_text(BUG)
    assert (
        rank_end(1, 1, str(tmp_path / "error.json"), str(tmp_path / "stderr")).message == "ValueError: wrong"
    )


def test_the_main_threads_innermost_calls_are_kept() -> None:
    outer = "".join(f'  File "loop.py", line {n} in outer{n}\n' for n in range(200))
    old = "Timeout (0:00:08)!\nThread 0x01 (most recent call first):\n  File old\n"
    dump = (
        f"{old}Timeout (0:00:08)!\nThread 0x02 (most recent call first):\n  File beat\n\n"
        f'Thread 0x01 (most recent call first):\n  File "hang.py", line 3 in stuck\n{outer}'
    )
    stack = main_thread_stack(dump)
    assert "in stuck" in stack
    assert "beat" not in stack
    assert "old\n" not in stack
    assert len(stack) <= 2048


def test_kills_for_memory_are_counted_in_both_versions_of_cgroups(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("4:cpu:/x\n9:memory:/pods/a\n")
    folder = tmp_path / "memory" / "pods" / "a"
    folder.mkdir(parents=True)
    (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert oom_kills(own, tmp_path) == 3
    own.write_text("0::/pods/b\n")
    (tmp_path / "memory.events").write_text("low 0\nmax 9\noom 2\noom_kill 2\n")
    assert oom_kills(own, tmp_path) == 2, "in a container the mount is already the pod's own"
    assert oom_kills(tmp_path / "absent", tmp_path) == 0
