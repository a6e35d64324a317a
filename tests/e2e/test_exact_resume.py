"""A run that is killed again and again equals one that never was: samples, losses, weights, to the bit.

Five kills at instants from a seeded generator: of a rank, of a whole node, of `aurl run` itself, all by
SIGKILL, and preemption notices. On one process and on two (min = max).
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.runs import job, log, start, trace, write_music

STEPS = 240
KILLS = 5
PATIENCE = 240.0


def agents(call: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The agents of a run's nodes."""
    return [p for p in _below(call) if "aurl_trainer.agent" in _line(p) and " run " in _line(p)]


def ranks(call: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The ranks of a run."""
    return [p for p in _below(call) if _line(p).endswith("aurl_trainer train")]


def _below(call: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(call.pid).children(recursive=True)
    return []


def _line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def kill_rank(call: subprocess.Popen[bytes], chance: random.Random) -> None:
    found = ranks(call)
    send([chance.choice(found)] if found else [], signal.SIGKILL)


def kill_node(call: subprocess.Popen[bytes], chance: random.Random) -> None:
    found = agents(call)
    if found:
        agent = chance.choice(found)
        with contextlib.suppress(psutil.Error):
            send([agent, *agent.children(recursive=True)], signal.SIGKILL)


def preempt_node(call: subprocess.Popen[bytes], chance: random.Random) -> None:
    found = agents(call)
    send([chance.choice(found)] if found else [], signal.SIGTERM)


def kill_run(call: subprocess.Popen[bytes], chance: random.Random) -> None:
    call.kill()


ACTIONS: list[Callable[[subprocess.Popen[bytes], random.Random], None]] = [
    kill_rank, kill_node, preempt_node, kill_run, kill_node,
]  # fmt: skip


def steps_seen(run: Path) -> int:
    """How many lines of steps all generations have written."""
    return sum(f.read_text().count('"kind":"audit"') for f in (run / "records").glob("*-rank-0000.jsonl"))


def wait(call: subprocess.Popen[bytes], condition: Callable[[], bool], what: str, run: Path) -> None:
    """Until `condition` or the end of the run, whichever is first."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and call.poll() is None:
        assert time.monotonic() < deadline, f"expected {what}; the run says:\n{log(run)}"
        time.sleep(0.02)


def finish(call: subprocess.Popen[bytes], run: Path) -> None:
    wait(call, lambda: False, "the run to end", run)
    assert call.wait() == 0, f"expected the run to succeed; it says:\n{log(run)}"


@pytest.mark.processes
@pytest.mark.timeout(900)
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_run_killed_five_times_equals_an_undisturbed_one(tmp_path: Path, nodes: int) -> None:
    music = write_music(tmp_path / "music")
    calm, hard = tmp_path / "calm", tmp_path / "hard"
    file = job(tmp_path, music, nodes=nodes, steps=STEPS)
    finish(start(file, calm), calm)

    chance = random.Random(f"kills on {nodes}")
    order = chance.sample(ACTIONS, KILLS)
    call = start(file, hard)
    struck = 0
    try:
        for action in order:
            before = steps_seen(hard)
            wait(call, lambda before=before: steps_seen(hard) > before + 2, "steps after a loss", hard)  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.7))
            if call.poll() is not None:
                break
            action(call, chance)
            struck += 1
            if action is kill_run:
                call.wait()
                call = start(file, hard)
        finish(call, hard)
    finally:
        call.kill()
    assert struck == KILLS, f"the run ended after {struck} of {KILLS} kills: give it more steps"

    expected, found = trace(calm), trace(hard)
    assert expected.generations == 1
    assert found.generations > KILLS - 1, "each loss should have made a new generation"
    assert expected.disagreements == found.disagreements == []
    assert found.ids == expected.ids, "every step trains on the same samples"
    assert found.loss == expected.loss, "every step has the same loss, to the last bit"
    assert found.weights == expected.weights, "the final weights are the same, to the last bit"
